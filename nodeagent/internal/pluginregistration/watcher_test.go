package pluginregistration

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	patience = 2 * time.Minute
	wink     = 5 * time.Millisecond
)

// plugin registers at one socket.
type plugin struct {
	registration.UnimplementedRegistrationServer
	info   *registration.PluginInfo
	mu     sync.Mutex
	told   []*registration.RegistrationStatus
	server *grpc.Server
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return p.info, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, s)
	return &registration.RegistrationStatusResponse{}, nil
}

func (p *plugin) last() *registration.RegistrationStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.told) == 0 {
		return nil
	}
	return p.told[len(p.told)-1]
}

// serve shows a plugin's socket until the test ends, or stop is called on its server.
func serve(t *testing.T, path, kind, name string) *plugin {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	p := &plugin{info: &registration.PluginInfo{Type: kind, Name: name, SupportedVersions: []string{"1.0.0"}}, server: grpc.NewServer()}
	registration.RegisterRegistrationServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }()
	t.Cleanup(p.server.Stop)
	return p
}

// taken are the plugins that a handler has.
type taken struct {
	mu     sync.Mutex
	now    map[string]Plugin // by socket
	ever   int
	refuse error
}

func (h *taken) Register(_ context.Context, p Plugin) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return h.refuse
	}
	h.now[p.Socket] = p
	h.ever++
	return nil
}

func (h *taken) Deregister(p Plugin) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.now, p.Socket)
}

func (h *taken) counts() (now, ever int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.now), h.ever
}

func watch(t *testing.T) (dir string, h *taken, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "plugins") // the path of a socket has 107 bytes at most
	require.NoError(t, err)
	h = &taken{now: map[string]Plugin{}}
	w := &Watcher{Dir: dir, Handlers: map[string]Handler{"CSIPlugin": h}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(func() {
		stop()
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir, h, stop
}

func (h *taken) await(t *testing.T, now, ever int) {
	t.Helper()
	require.Eventually(t, func() bool { n, e := h.counts(); return n == now && e == ever }, patience, wink, "%d now, %d ever", now, ever)
}

func TestPluginsComeAndGo(t *testing.T) {
	t.Parallel()
	dir, h, stop := watch(t)
	path := filepath.Join(dir, "a.sock")
	p := serve(t, path, "CSIPlugin", "a")
	h.await(t, 1, 1)
	require.Equal(t, Plugin{Type: "CSIPlugin", Name: "a", Socket: path, Endpoint: path, Versions: []string{"1.0.0"}}, h.now[path])
	require.Eventually(t, func() bool { s := p.last(); return s != nil && s.PluginRegistered }, patience, wink)

	// In a folder that is made later, too; hidden ones and files are none.
	serve(t, filepath.Join(dir, "below", "b.sock"), "CSIPlugin", "b")
	serve(t, filepath.Join(dir, ".hidden.sock"), "CSIPlugin", "c")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600))
	h.await(t, 2, 2)

	// A plugin that was started again is another one, also at the same path.
	p.server.Stop()
	serve(t, path, "CSIPlugin", "a")
	h.await(t, 2, 3)
	require.NoError(t, os.Remove(path))
	h.await(t, 1, 3)
	stop()
	h.await(t, 0, 3)
}

// One that was there before the watcher, one that is refused for a while, and one of
// another type.
func TestPluginIsToldWhyNot(t *testing.T) {
	t.Parallel()
	dir, h, _ := watch(t)
	h.mu.Lock()
	h.refuse = errors.New("not today")
	h.mu.Unlock()
	p := serve(t, filepath.Join(dir, "a.sock"), "CSIPlugin", "a")
	other := serve(t, filepath.Join(dir, "b.sock"), "DRAPlugin", "b")
	require.Eventually(t, func() bool { s := p.last(); return s != nil && s.Error == "not today" }, patience, wink)
	require.Eventually(t, func() bool {
		s := other.last()
		return s != nil && !s.PluginRegistered && s.Error == `plugins of type "DRAPlugin" are not taken on AI nodes`
	}, patience, wink)
	h.mu.Lock()
	h.refuse = nil
	h.mu.Unlock()
	h.await(t, 1, 1)
}

func TestAsk(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "plugins")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "a.sock")
	_, err = Ask(t.Context(), path)
	require.ErrorContains(t, err, path)
	serve(t, path, "CSIPlugin", "a")
	got, err := Ask(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, "a", got.Name)
	sockets, err := Sockets(dir)
	require.NoError(t, err)
	require.Equal(t, []string{path}, sockets)
}
