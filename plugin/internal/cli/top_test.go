package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Watching shows it again until Ctrl-C, which is no error; what is written to a file
// has no terminal's control sequences.
func TestTopRedraws(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := `{"apiVersion":"v1","kind":"Node","metadata":{"name":"ai-1","labels":{"alibabacloud.com/virtual-node":"true"}}}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "target.yaml"), []byte(node), 0o600))
	metrics := `ainode_gpu_usable{gpu="0",UUID="GPU-1",modelName="NVIDIA L20"} 1` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ai-1.metrics"), []byte(metrics), 0o600))
	w, err := newWorld(dir)
	require.NoError(t, err)
	t.Cleanup(w.stop)
	ctx, cancel := context.WithCancel(w.ctx)
	var out, errOut bytes.Buffer
	screens := &counting{to: &out, enough: 2, done: cancel}
	require.Zero(t, w.run(ctx, screens, &errOut, []string{"top", "-w", "--interval", "1s"}), errOut.String())
	require.Equal(t, 2, strings.Count(out.String(), "ai-1  1×L20, 0 in use\n"))
	require.NotContains(t, out.String(), "\x1b")
}

// counting calls done when enough was written.
type counting struct {
	to     *bytes.Buffer
	enough int
	done   func()
}

func (c *counting) Write(b []byte) (int, error) {
	if c.enough--; c.enough == 0 {
		defer c.done()
	}
	return c.to.Write(b)
}
