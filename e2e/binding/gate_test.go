package binding

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// gate stands before both API servers and counts what one command writes. The n-th
// write is let through; its answer never comes back, for the command is killed then.
type gate struct {
	// hold, if there is one, is called with each request before it is let through.
	hold func(*http.Request)

	n       int
	reached chan struct{}
	killed  chan struct{}

	mu     sync.Mutex
	writes []string
}

// writing is a request that changes what is stored. Questions are asked with POST too,
// and what is tried with the new identity is a dry run.
func writing(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Header.Get("Authorization") == "" && r.URL.Query().Get("dryRun") == "" &&
		!strings.HasSuffix(r.URL.Path, "reviews")
}

var errKilled = errors.New("who asked has been killed")

// answered counts a write that the server has done; one that it refuses changes nothing.
func (g *gate) answered(r *http.Response) error {
	if !writing(r.Request) || r.StatusCode >= http.StatusMultipleChoices {
		return nil
	}
	g.mu.Lock()
	g.writes = append(g.writes, r.Request.Method+" "+r.Request.URL.Path)
	last := len(g.writes) == g.n
	g.mu.Unlock()
	if last {
		close(g.reached)
		<-g.killed
		return errKilled
	}
	return nil
}

// credentials are the person's, but for who brings a token.
type credentials struct{ person, none http.RoundTripper }

func (c credentials) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Authorization") != "" {
		return c.none.RoundTrip(r)
	}
	return c.person.RoundTrip(r)
}

// open stands before one API server and returns its address there.
func (g *gate) open(t *testing.T, p *plane) string {
	t.Helper()
	as := rest.CopyConfig(p.rest)
	as.Impersonate.UserName = person
	kim, err := rest.TransportFor(as)
	require.NoError(t, err)
	none, err := rest.TransportFor(rest.AnonymousClientConfig(p.rest))
	require.NoError(t, err)
	server, err := url.Parse(p.rest.Host)
	require.NoError(t, err)
	through := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(server) },
		Transport:      credentials{kim, none},
		FlushInterval:  -1, // watches
		ModifyResponse: g.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.hold != nil {
			g.hold(r)
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// behind is a kubeconfig of both clusters that leads through a gate.
func (s *stage) behind(t *testing.T, g *gate) string {
	t.Helper()
	return s.writeKubeconfig(t, filepath.Join(t.TempDir(), "gate"), map[*plane]string{s.a: g.open(t, s.a), s.b: g.open(t, s.b)})
}

// kill runs kubectl ainode and kills it with its n-th write. It reports whether there
// was an n-th; if there was none, the command must have ended well.
func (s *stage) kill(t *testing.T, n int, target *plane, args ...string) (reached bool, writes []string) {
	t.Helper()
	g := &gate{n: n, reached: make(chan struct{}), killed: make(chan struct{})}
	kubeconfig := s.behind(t, g)
	cmd := exec.CommandContext(t.Context(), s.program("kubectl-ainode"), append(args, s.clusters(kubeconfig, target)...)...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-g.reached:
		reached = true
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		<-ended
		require.Equal(t, syscall.SIGKILL, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
		close(g.killed)
	case err := <-ended:
		require.NoError(t, err, said.String())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return reached, g.writes
}
