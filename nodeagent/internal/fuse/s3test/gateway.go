// Package s3test gives tests a real S3 gateway on loopback, which keeps objects as
// files. It builds versitygw from its Go module once a machine.
package s3test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

// module is the version that the tests are made with.
const (
	module = "github.com/versity/versitygw/cmd/%s@v1.8.0"
	folder = "versitygw-v1.8.0"
)

// The keys of every gateway.
const (
	KeyID     = "AKIDTESTTESTTEST"
	KeySecret = "secretTESTTESTTESTsecret"
)

// Gateway is a gateway that a test has for itself.
type Gateway struct {
	// Address is 127.0.0.1:PORT, where buckets stand in the path.
	Address string
	// Name is localhost:PORT, where buckets may stand before the name.
	Name string

	program, data string
	process       *exec.Cmd
}

// Start runs a gateway until the test ends.
func Start(t testing.TB) *Gateway {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test runs an S3 gateway")
	}
	address := free(t)
	g := &Gateway{
		Address: address, Name: strings.Replace(address, "127.0.0.1", "localhost", 1),
		program: filepath.Join(critest.Programs(t, folder, module, "versitygw"), "versitygw"), data: t.TempDir(),
	}
	t.Cleanup(g.Stop)
	g.Run(t)
	return g
}

// tried counts the ports that were looked at.
var tried atomic.Uint32

// free is an address that nobody listens at, and that nobody is given who asks for any
// (net.ipv4.ip_local_port_range begins at 32768): while the gateway is stopped, its helpers
// must find nobody there.
func free(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 10000 + (61*uint32(os.Getpid())+tried.Add(1))%20000
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue
		}
		require.NoError(t, listener.Close())
		return address
	}
	t.Fatal("no port is free for an S3 gateway")
	return ""
}

// Run starts a gateway that was stopped, with the buckets that it had.
func (g *Gateway) Run(t testing.TB) {
	t.Helper()
	g.process = exec.Command(g.program, "--port", g.Address, "--virtual-domain", g.Name, "--quiet", "posix", g.data)
	g.process.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+KeyID, "ROOT_SECRET_KEY="+KeySecret)
	require.NoError(t, g.process.Start())
	require.Eventually(t, func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Address, nil)
		if err != nil {
			return false
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		return response.Body.Close() == nil
	}, time.Minute, 10*time.Millisecond, "the S3 gateway answers")
}

// Stop ends the gateway as a crash does.
func (g *Gateway) Stop() {
	if g.process != nil {
		_ = g.process.Process.Kill()
		_ = g.process.Wait()
		g.process = nil
	}
}

// Bucket makes a bucket with objects in it, by name.
func (g *Gateway) Bucket(t testing.TB, name string, objects map[string]string) {
	t.Helper()
	for object, content := range objects {
		path := filepath.Join(g.data, name, object)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(g.data, name), 0o755))
}

// Zeros puts an object of that many zeros into the bucket, which cost no disk.
func (g *Gateway) Zeros(t testing.TB, bucket, name string, size int64) {
	t.Helper()
	g.Bucket(t, bucket, map[string]string{name: ""})
	require.NoError(t, os.Truncate(filepath.Join(g.data, bucket, name), size))
}

// Object is what the bucket holds under a name.
func (g *Gateway) Object(bucket, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(g.data, bucket, name))
	if err != nil {
		return "", fmt.Errorf("read object %q: %w", name, err)
	}
	return string(raw), nil
}
