package kubeletapi

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// authority is a certificate authority of the test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T, subject pkix.Name, usage x509.ExtKeyUsage, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: subject, NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// reviewer is a target that knows one token and lets "viewer" see logs' proxy.
type reviewer struct {
	tokenReviews, accessReviews atomic.Int32
}

func (r *reviewer) client() *fake.Clientset {
	c := fake.NewClientset()
	c.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r.tokenReviews.Add(1)
		review := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		if review.Spec.Token == "good" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "admin"}}
		}
		return true, review, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r.accessReviews.Add(1)
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		attributes := review.Spec.ResourceAttributes
		review.Status.Allowed = review.Spec.User == "admin" ||
			review.Spec.User == "prober" && attributes.Subresource == "healthz" && attributes.Name == "ai-1"
		return true, review, nil
	})
	return c
}

type onePod struct {
	pod *corev1.Pod
	log string
}

func (p onePod) Pods() []*corev1.Pod { return []*corev1.Pod{p.pod.DeepCopy()} }
func (p onePod) ContainerID(_, _ string, _ types.UID, container string) (string, error) {
	return "id-" + container, nil
}
func (p onePod) SandboxID(string, string, types.UID) (string, error) { return "sandbox", nil }
func (p onePod) LogPath(string, string, types.UID, string, bool) (string, error) {
	return p.log, nil
}

// runtimeStub answers with the address of a streaming server.
type runtimeStub struct {
	criapi.RuntimeService
	address string
	exec    atomic.Pointer[runtimeapi.ExecRequest]
}

func (r *runtimeStub) Exec(_ context.Context, q *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	r.exec.Store(q)
	return &runtimeapi.ExecResponse{Url: r.address + "/exec/token"}, nil
}

// running is a server under test.
type running struct {
	url      string
	servers  *x509.CertPool
	clients  *authority
	reviewer *reviewer
	runtime  *runtimeStub
	usage    *measured
}

func serve(t *testing.T) *running {
	t.Helper()
	serving, clients, target := newAuthority(t), newAuthority(t), &reviewer{}
	logFile := filepath.Join(t.TempDir(), "0.log")
	require.NoError(t, os.WriteFile(logFile, []byte(
		"2026-11-24T03:00:00.000000000Z stdout F one\n2026-11-24T03:00:01.000000000Z stderr F two\n2026-11-24T03:00:02.000000000Z stdout F three\n"), 0o600))
	rt, usage := &runtimeStub{}, &measured{}
	certificate := serving.issue(t, pkix.Name{CommonName: "system:node:ai-1"}, x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	s, err := New(Options{
		Node: "ai-1", Address: "127.0.0.1:0", Client: target.client(), ClientCA: clients.pem,
		Certificate: func() *tls.Certificate { return certificate }, Runtime: rt, Usage: usage,
		Probes: prometheus.NewRegistry(), GPUs: prometheus.NewRegistry(), Clock: clock.RealClock{},
		Pods: onePod{log: logFile, pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u1"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
		}},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := s.Listen(ctx)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	pool := x509.NewCertPool()
	pool.AddCert(serving.cert)
	return &running{url: "https://" + l.Addr().String(), servers: pool, clients: clients, reviewer: target, runtime: rt, usage: usage}
}

func (r *running) get(t *testing.T, path string, certificate *tls.Certificate, token string) (int, string) {
	t.Helper()
	cfg := &tls.Config{RootCAs: r.servers, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{*certificate}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	require.NoError(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode, string(body)
}

func TestNobodyGetsInUnknown(t *testing.T) {
	t.Parallel()
	r := serve(t)
	hour := time.Now().Add(time.Hour)
	admin, client := pkix.Name{CommonName: "admin"}, x509.ExtKeyUsageClientAuth
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		token       string
		path        string
		want        int
	}{
		"anonymous":                  {path: "/healthz", want: http.StatusUnauthorized},
		"anonymous, unknown path":    {path: "/nothing", want: http.StatusUnauthorized},
		"certificate":                {certificate: r.clients.issue(t, admin, client, hour), path: "/healthz", want: http.StatusOK},
		"certificate of another CA":  {certificate: newAuthority(t).issue(t, admin, client, hour), path: "/healthz", want: http.StatusUnauthorized},
		"a server's certificate":     {certificate: r.clients.issue(t, admin, x509.ExtKeyUsageServerAuth, hour), path: "/healthz", want: http.StatusUnauthorized},
		"an expired certificate":     {certificate: r.clients.issue(t, admin, client, time.Now().Add(-time.Minute)), path: "/healthz", want: http.StatusUnauthorized},
		"a certificate of nobody":    {certificate: r.clients.issue(t, pkix.Name{}, client, hour), path: "/healthz", want: http.StatusUnauthorized},
		"token":                      {token: "good", path: "/pods", want: http.StatusOK},
		"bad token":                  {token: "bad", path: "/pods", want: http.StatusUnauthorized},
		"known, not allowed":         {certificate: r.clients.issue(t, pkix.Name{CommonName: "stranger"}, client, hour), path: "/pods", want: http.StatusForbidden},
		"allowed healthz only":       {certificate: r.clients.issue(t, pkix.Name{CommonName: "prober"}, client, hour), path: "/healthz", want: http.StatusOK},
		"healthz does not open logs": {certificate: r.clients.issue(t, pkix.Name{CommonName: "prober"}, client, hour), path: "/containerLogs/default/p/main", want: http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, body := r.get(t, c.path, c.certificate, c.token)
			require.Equal(t, c.want, got, body)
		})
	}
}

func TestAnswersAreRemembered(t *testing.T) {
	t.Parallel()
	r := serve(t)
	for range 5 {
		code, _ := r.get(t, "/healthz", nil, "good")
		require.Equal(t, http.StatusOK, code)
		code, _ = r.get(t, "/healthz", nil, "bad")
		require.Equal(t, http.StatusUnauthorized, code)
	}
	require.EqualValues(t, 2, r.reviewer.tokenReviews.Load(), "one question a token")
	require.EqualValues(t, 1, r.reviewer.accessReviews.Load())
}

func TestLogs(t *testing.T) {
	t.Parallel()
	r := serve(t)
	for query, want := range map[string]string{
		"":                                "one\ntwo\nthree\n",
		"?tailLines=1":                    "three\n",
		"?limitBytes=3":                   "one",
		"?stream=Stderr":                  "two\n",
		"?timestamps=true&tailLines=1":    "2026-11-24T03:00:02.000000000Z three\n",
		"?sinceTime=2026-11-24T03:00:01Z": "two\nthree\n",
	} {
		code, body := r.get(t, "/containerLogs/default/p/main"+query, nil, "good")
		require.Equal(t, http.StatusOK, code, query)
		require.Equal(t, want, body, query)
	}
	for path, want := range map[string]int{
		"/containerLogs/default/p/other":            http.StatusNotFound,
		"/containerLogs/default/q/main":             http.StatusNotFound,
		"/containerLogs/default/p/main?tailLines=x": http.StatusBadRequest,
	} {
		code, _ := r.get(t, path, nil, "good")
		require.Equal(t, want, code, path)
	}
}

// The bytes after an upgrade are passed on both ways, and the token stays here.
func TestExecIsPassedOn(t *testing.T) {
	t.Parallel()
	r := serve(t)
	streaming := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/exec/token" || q.Header.Get("Authorization") != "" || q.Header.Get("Upgrade") != "SPDY/3.1" {
			http.Error(w, fmt.Sprint(q.URL, q.Header), http.StatusTeapot)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"))
		line, _ := buffered.ReadString('\n')
		_, _ = conn.Write([]byte("echo " + line))
	}))
	t.Cleanup(streaming.Close)
	r.runtime.address = streaming.URL

	u, err := url.Parse(r.url)
	require.NoError(t, err)
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{RootCAs: r.servers, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "POST /exec/default/p/main?command=ls&command=-l&input=1&output=1&tty=1&error=1 HTTP/1.1\r\nHost: x\r\n"+
		"Authorization: Bearer good\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n")
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil) // an upgraded connection has no body
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
	_, err = io.WriteString(conn, "hello\n")
	require.NoError(t, err)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "echo hello\n", line)

	asked := r.runtime.exec.Load()
	require.Equal(t, "id-main", asked.ContainerId)
	require.Equal(t, []string{"ls", "-l"}, asked.Cmd)
	require.True(t, asked.Tty && asked.Stdin && asked.Stdout)
	require.False(t, asked.Stderr, "a terminal has one output")
}

func TestSubresources(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"/pods": {"pods", "proxy"}, "/podsx": {"proxy"}, "/runningpods/": {"pods", "proxy"}, "/healthz/ping": {"healthz", "proxy"},
		"/stats/summary": {"stats"}, "/metrics": {"metrics"}, "/metrics/resource": {"metrics"}, "/logs/": {"log"},
		"/exec/a/b/c": {"proxy"}, "/containerLogs/a/b/c": {"proxy"}, "/": {"proxy"},
	} {
		require.Equal(t, want, subresources(path), path)
	}
	require.Equal(t, "create", verb(http.MethodPost, "/run/a/b/c"))
	require.Empty(t, verb("TRACE", "/"))
	for path, want := range map[string]string{
		"/exec/a/b/c": "create", "/attach/a/b/c": "create", "/portForward/a/b": "create", "/containerLogs/a/b/c": "get", "/pods": "get",
	} {
		require.Equal(t, want, verb(http.MethodGet, path), path)
	}
}
