package pods

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/cert"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/kubeletapi"
)

// kubelet is the machine's kubelet API, asked as the API server asks it.
type kubelet struct {
	t      testing.TB
	config *rest.Config
	// ctx bounds every stream, so that none is waited for without end.
	ctx context.Context
}

// within gives every stream that long.
func (k *kubelet) within(limit time.Duration) {
	ctx, cancel := context.WithTimeoutCause(k.t.Context(), limit, errors.New("this stream has taken too long"))
	k.t.Cleanup(cancel)
	k.ctx = ctx
}

// kubelet serves the machine's pods.
func (m *machine) kubelet() *kubelet {
	m.t.Helper()
	target := fake.NewClientset()
	target.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: review.Spec.Token}}
		return true, review, nil
	})
	target.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		review.Status.Allowed = review.Spec.User == "api-server"
		return true, review, nil
	})
	ca, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.NoError(m.t, err)
	serving, err := tls.X509KeyPair(ca, key)
	require.NoError(m.t, err)
	s, err := kubeletapi.New(kubeletapi.Options{
		Node: "ai-1", Address: "127.0.0.1:0", Client: target, ClientCA: ca, Certificate: func() *tls.Certificate { return &serving },
		Pods: m.manager, Runtime: m.c.Runtime, Images: m.c.Runtime.Images, Probes: prometheus.NewRegistry(), GPUs: prometheus.NewRegistry(), Clock: clock.RealClock{},
	})
	require.NoError(m.t, err)
	ctx, cancel := context.WithCancel(m.t.Context())
	l, err := s.Listen(ctx)
	require.NoError(m.t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	m.t.Cleanup(func() { cancel(); require.NoError(m.t, received(m.t, done)) })
	return newKubelet(m.t, &rest.Config{
		Host: "https://" + l.Addr().String(), BearerToken: "api-server", TLSClientConfig: rest.TLSClientConfig{CAData: ca},
	})
}

func newKubelet(t testing.TB, config *rest.Config) *kubelet {
	k := &kubelet{t: t, config: config}
	k.within(5 * patience)
	return k
}

func (k *kubelet) url(path string, query url.Values) *url.URL {
	u, err := url.Parse(k.config.Host + path + "?" + query.Encode())
	require.NoError(k.t, err)
	return u
}

// protocols are the two that kubectl speaks, through the clients that it uses.
var protocols = map[string]struct {
	executor func(*rest.Config, *url.URL) (remotecommand.Executor, error)
	dialer   func(*rest.Config, *url.URL) (httpstream.Dialer, error)
}{
	"spdy": {
		func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
		},
		func(c *rest.Config, u *url.URL) (httpstream.Dialer, error) {
			transport, upgrader, err := spdy.RoundTripperFor(c)
			return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), err
		},
	},
	"websocket": {
		func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(c, http.MethodGet, u.String())
		},
		func(c *rest.Config, u *url.URL) (httpstream.Dialer, error) {
			return portforward.NewSPDYOverWebsocketDialerForStreaming(u, c)
		},
	},
}

// open runs exec or attach until its streams end, and gives back its verdict.
func (k *kubelet) open(protocol, path string, command []string, o remotecommand.StreamOptions) <-chan error {
	k.t.Helper()
	query := url.Values{"command": command}
	for name, asked := range map[string]bool{
		corev1.ExecStdinParam: o.Stdin != nil, corev1.ExecStdoutParam: o.Stdout != nil, corev1.ExecStderrParam: o.Stderr != nil, corev1.ExecTTYParam: o.Tty,
	} {
		if asked {
			query.Set(name, "1")
		}
	}
	executor, err := protocols[protocol].executor(k.config, k.url(path, query))
	require.NoError(k.t, err)
	done := make(chan error, 1)
	go func() {
		err := executor.StreamWithContext(k.ctx, o)
		if in, ok := o.Stdin.(*io.PipeReader); ok {
			_ = in.CloseWithError(fmt.Errorf("the stream has ended: %w", cmp.Or(err, io.EOF))) // or who writes waits for ever
		}
		done <- err
	}()
	return done
}

// logs asks for a container's log; who follows it closes it.
func (k *kubelet) logs(path string, query url.Values) io.ReadCloser {
	k.t.Helper()
	client, err := rest.HTTPClientFor(k.config)
	require.NoError(k.t, err)
	request, err := http.NewRequestWithContext(k.ctx, http.MethodGet, k.url("/containerLogs/"+path, query).String(), nil)
	require.NoError(k.t, err)
	answer, err := client.Do(request)
	require.NoError(k.t, err)
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(answer.Body)
		require.Equal(k.t, http.StatusOK, answer.StatusCode, "%s: %s", path, body)
	}
	return answer.Body
}

// forward forwards a local port to one of the pod, and returns the local address; lost
// tells how it ended.
func (k *kubelet) forward(protocol, pod string, port int) (local string, lost <-chan error) {
	k.t.Helper()
	dialer, err := protocols[protocol].dialer(k.config, k.url("/portForward/"+pod, nil))
	require.NoError(k.t, err)
	stop, ready, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f, err := portforward.NewForStreaming(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	require.NoError(k.t, err)
	go func() { done <- f.ForwardPorts() }()
	k.t.Cleanup(func() { close(stop) })
	select {
	case <-ready:
	case err := <-done:
		require.NoError(k.t, err)
		k.t.Fatal("the forwarding ended")
	}
	ports, err := f.GetPorts()
	require.NoError(k.t, err)
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), done
}

// lines are what comes out of a stream.
type lines chan string

func linesOf(r io.Reader) lines {
	l := make(lines, 100)
	go func() {
		defer close(l)
		for s := bufio.NewScanner(r); s.Scan(); {
			l <- s.Text()
		}
	}()
	return l
}

// next is the next line, or what is said of it that there is none.
func (l lines) next() string {
	select {
	case line, ok := <-l:
		if !ok {
			return "(the stream has ended)"
		}
		return line
	case <-time.After(patience):
		return "(nothing has come)"
	}
}

// until reads up to that line.
func (l lines) until(want string) string {
	line := l.next()
	for ; line != want && !strings.HasPrefix(line, "("); line = l.next() {
	}
	return line
}

// greet types lines to an attached cat until the last one is shown, and returns it:
// containerd passes stdin on a moment before it adds the outputs (ContainerIO.Attach), and
// what cat gives back in between is shown to nobody.
func greet(t testing.TB, in io.Writer, out lines) string {
	t.Helper()
	for n := 0; ; n++ {
		hello := fmt.Sprintf("hello %d", n)
		_, err := io.WriteString(in, hello+"\n")
		require.NoError(t, err)
		for again := time.After(patience / 60); again != nil; {
			select {
			case line := <-out:
				require.Regexp(t, "^hello [0-9]+$", line, "nothing of what was written before")
				if line == hello {
					return hello
				}
			case <-again:
				again = nil
			}
		}
		require.Less(t, n, 60, "nothing is shown")
	}
}

// talk opens every kind of stream by both protocols, uses each, pauses, and uses it again.
func talk(t *testing.T, pause time.Duration) {
	m := newMachine(t)
	m.withRange()
	m.start()
	pod := echoing("streams")
	for protocol := range protocols {
		c := *pod.Spec.Containers[0].DeepCopy()
		c.StartupProbe = nil
		c.Name, c.Command, c.Stdin = protocol, []string{"cat"}, true
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	m.create(pod)
	m.awaitPhase("streams", corev1.PodRunning)
	m.awaitStarted("streams")
	k := m.kubelet()
	k.within(pause + 5*patience)

	type stream struct {
		name string
		in   io.Writer
		out  lines
	}
	var streams []stream
	for protocol := range protocols {
		container := "default/streams/" + protocol
		log := k.logs(container, url.Values{"follow": {"true"}})
		t.Cleanup(func() { _ = log.Close() })
		logged := linesOf(log)
		for _, verb := range []string{"exec", "attach"} {
			in, typed := io.Pipe()
			shown, out := io.Pipe()
			k.open(protocol, "/"+verb+"/"+container, []string{"cat"}, remotecommand.StreamOptions{Stdin: in, Stdout: out})
			t.Cleanup(func() { _ = typed.Close() })
			s := stream{protocol + " " + verb, typed, linesOf(shown)}
			streams = append(streams, s)
			if verb == "attach" {
				hello := greet(t, s.in, s.out)
				require.Equal(t, hello, logged.until(hello))
			}
		}
		streams = append(streams, stream{protocol + " logs", io.Discard, logged}) // of what the attached cat wrote
		local, _ := k.forward(protocol, "default/streams", 7)
		conn, err := net.Dial("tcp", local)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		streams = append(streams, stream{protocol + " port-forward", conn, linesOf(conn)})
	}
	say := func(text string) {
		for _, s := range streams {
			_, err := io.WriteString(s.in, text+"\n")
			require.NoError(t, err, s.name)
			require.Equal(t, text, s.out.next(), s.name)
		}
	}
	say("first")
	time.Sleep(pause)
	say("second")
}

func TestEveryStreamByBothProtocols(t *testing.T) {
	t.Parallel()
	talk(t, 0)
}
