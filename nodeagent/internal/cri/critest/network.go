package critest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pluginsModule are the CNI plugins that the product is tested with.
const pluginsModule = "github.com/containernetworking/plugins/plugins/%s@v1.9.1"

// CNIBinDir is where this containerd looks for CNI plugins; WithPlugins puts them there.
func (c *Containerd) CNIBinDir() string { return filepath.Join(c.bin, "cni") }

// CNIConfDir is where this containerd reads CNI configurations.
func (c *Containerd) CNIConfDir() string { return filepath.Join(c.dir, "net.d") }

// WithPlugins gives this containerd CNI plugins, built once a machine.
func (c *Containerd) WithPlugins(t testing.TB) {
	t.Helper()
	install(t, c.CNIBinDir(), pluginsModule, []string{"main/bridge", "main/loopback", "ipam/host-local"})
}

// Bridge makes a bridge that no other test has, and returns it with a range of
// addresses that is its own as long as the test runs (RFC 2544's, for tests of
// network devices). The bridge is the claim: making one that is there fails.
func Bridge(t testing.TB) (bridge, cidr string) {
	t.Helper()
	for i := range 512 {
		bridge = fmt.Sprintf("aitest%d", i)
		out, err := exec.Command("ip", "link", "add", bridge, "type", "bridge").CombinedOutput()
		if err == nil {
			t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", bridge).Run() })
			return bridge, fmt.Sprintf("198.%d.%d.0/24", 18+i/256, i%256)
		}
		require.True(t, strings.Contains(string(out), "File exists"), "make a bridge: %s", out)
	}
	t.Fatal("512 tests have a bridge: remove what earlier ones left (ip link show type bridge)")
	return "", ""
}
