package probes

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	health "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Seconds: an answer that comes has plenty, one that does not is given up soon.
const plenty, soon = 120, 1

// asked is what a probe of a container at 127.0.0.1 comes to within that many seconds.
func asked(t *testing.T, within int32, handler corev1.ProbeHandler, ports ...corev1.ContainerPort) (answer, error) {
	t.Helper()
	p := &probe{
		set: New(Options{}), spec: &corev1.Probe{ProbeHandler: handler, TimeoutSeconds: within},
		container: Container{Address: "127.0.0.1", Spec: &corev1.Container{Name: "main", Ports: ports}},
	}
	return p.ask(t.Context())
}

func port(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// nobody is a port that refuses: it is taken, so that no other program listens at it, and
// nobody does.
func nobody(t *testing.T) int {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(socket) })
	require.NoError(t, unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := unix.Getsockname(socket)
	require.NoError(t, err)
	return at.(*unix.SockaddrInet4).Port
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/code/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.WriteHeader(code)
		_, _ = w.Write([]byte("a secret"))
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/code/200", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "pod.example.com" || r.Header.Get("X") != "1" || r.UserAgent() != "kube-probe/"+Version || r.Header.Get("Accept") != "*/*" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "a=b" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	for scheme, server := range map[corev1.URIScheme]*httptest.Server{
		"": httptest.NewServer(mux), corev1.URISchemeHTTP: httptest.NewServer(mux), corev1.URISchemeHTTPS: httptest.NewTLSServer(mux),
	} {
		t.Cleanup(server.Close)
		at := intstr.FromInt(port(t, server.Listener.Addr().String()))
		get := func(path string, within int32) (answer, error) {
			return asked(t, within, corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: at, Scheme: scheme, HTTPHeaders: []corev1.HTTPHeader{
				{Name: "Host", Value: "pod.example.com"}, {Name: "X", Value: "1"},
			}}})
		}
		for path, want := range map[string]answer{
			"/code/200":  {ok: true},
			"/code/399":  {ok: true, warning: true, output: "Probe terminated redirects, Response body: a secret"},
			"/code/400":  {output: "HTTP probe failed with statuscode: 400"},
			"/code/503":  {output: "HTTP probe failed with statuscode: 503"},
			"/here":      {ok: true},
			"/headers":   {ok: true},
			"/query?a=b": {ok: true},
			"code/200":   {ok: true},
		} {
			got, err := get(path, plenty)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s %s", scheme, path)
		}
		got, err := get("/away", plenty)
		require.NoError(t, err)
		require.True(t, got.ok && got.warning, "what another host says counts for nothing")
		got, err = get("/slow", soon)
		require.NoError(t, err)
		require.False(t, got.ok)
		require.Contains(t, got.output, "Client.Timeout exceeded")
		got, err = get("/round", plenty)
		require.NoError(t, err)
		require.False(t, got.ok)
		require.Contains(t, got.output, "stopped after 10 redirects")
	}
}

func TestHTTPHeadersOfTheirOwn(t *testing.T) {
	t.Parallel()
	get := &corev1.HTTPGetAction{Port: intstr.FromInt(80), HTTPHeaders: []corev1.HTTPHeader{
		{Name: "User-Agent", Value: "mine/1"}, {Name: "Accept", Value: ""},
	}}
	request, err := Request(t.Context(), get, &corev1.Container{}, "::1", "kube-lifecycle")
	require.NoError(t, err)
	require.Equal(t, "mine/1", request.UserAgent())
	require.NotContains(t, request.Header, "Accept")
	require.Equal(t, "http://[::1]:80", request.URL.String())
}

func TestTCPAndPorts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	named := corev1.ContainerPort{Name: "web", ContainerPort: int32(port(t, l.Addr().String()))}
	connect := func(port intstr.IntOrString) (answer, error) {
		return asked(t, plenty, corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}, named)
	}
	for _, port := range []intstr.IntOrString{intstr.FromString("web"), intstr.FromInt32(named.ContainerPort), intstr.FromString(strconv.Itoa(int(named.ContainerPort)))} {
		got, err := connect(port)
		require.NoError(t, err)
		require.True(t, got.ok, port.String())
	}
	for _, port := range []intstr.IntOrString{intstr.FromString("db"), intstr.FromInt32(0), intstr.FromInt32(70000)} {
		_, err := connect(port)
		require.EqualError(t, err, `port "`+port.String()+`" is not a port of container "main"`)
	}
	require.NoError(t, l.Close())
	got, err := connect(intstr.FromInt(nobody(t)))
	require.NoError(t, err)
	require.False(t, got.ok)
	require.Contains(t, got.output, "connection refused")
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	service := grpchealth.NewServer()
	service.SetServingStatus("down", health.HealthCheckResponse_NOT_SERVING)
	check := func(within int32, port int, name *string) answer {
		got, err := asked(t, within, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port), Service: name}})
		require.NoError(t, err)
		return got
	}
	serve := func(register func(*grpc.Server)) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := grpc.NewServer()
		register(server)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		return port(t, l.Addr().String())
	}
	at := serve(func(s *grpc.Server) { health.RegisterHealthServer(s, service) })
	require.Equal(t, answer{ok: true}, check(plenty, at, nil))
	require.Equal(t, answer{output: `service unhealthy (responded with "NOT_SERVING")`}, check(plenty, at, ptr.To("down")))
	require.Contains(t, check(plenty, at, ptr.To("none")).output, "error: health rpc probe failed")
	require.Contains(t, check(plenty, serve(func(*grpc.Server) {}), nil).output, "does not implement the grpc health protocol")

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.Equal(t, answer{output: "timeout: health rpc did not complete within 1s"}, check(soon, port(t, silent.Addr().String()), nil))
	require.NoError(t, silent.Close())
	require.Contains(t, check(plenty, nobody(t), nil).output, "error: failed to connect service at")
}

// recorder is a runtime that notes the command.
type recorder struct{ command []string }

func (r *recorder) ExecSync(_ context.Context, _ string, command []string, _ time.Duration) (stdout, stderr []byte, err error) {
	r.command = command
	return []byte(strings.Repeat("x", most+1)), nil, nil
}

func TestExec(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	p := &probe{
		set: New(Options{Runtime: r}), spec: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "$(FILE)", "$(OTHER)"}}}},
		container: Container{Spec: &corev1.Container{Env: []corev1.EnvVar{{Name: "FILE", Value: "/f"}, {Name: "OTHER", ValueFrom: &corev1.EnvVarSource{}}}}},
	}
	got, err := p.ask(t.Context())
	require.NoError(t, err)
	require.Len(t, got.output, most)
	require.Equal(t, []string{"cat", "/f", "$(OTHER)"}, r.command, "only what stands in the definition is known outside of the container")
}
