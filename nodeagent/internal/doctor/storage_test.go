package doctor

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

func TestCSIDrivers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dir, err := os.MkdirTemp("", "csi") // the path of a socket has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b.Config.KubeletDir = dir
	require.Contains(t, b.see(t, "csi").What, "no CSI driver shows itself in "+dir)
	require.NoDirExists(t, b.Config.PluginsDir(), "a look makes nothing")
	d := csitest.New(t, dir, "disk.example.com")
	d.Serve(t)
	f := b.see(t, "csi")
	require.Equal(t, OK, f.Severity)
	require.Equal(t, "disk.example.com serves at "+dir+"/plugins/disk.example.com/csi.sock", f.What)
	require.Empty(t, d.Told(), "it is not registered by a look")

	builtIn := csitest.New(t, dir, "ossplugin.csi.alibabacloud.com")
	builtIn.Serve(t)
	var said []string
	for _, f := range b.Examine(t.Context()) {
		if f.ID == "csi" {
			said = append(said, string(f.Severity)+" "+f.What)
		}
	}
	require.Len(t, said, 2)
	require.Contains(t, strings.Join(said, "\n"), "warning ossplugin.csi.alibabacloud.com shows itself at")
}
