//go:build long

package older

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/e2e/story"
)

// TestNewerAPIServer imports a cluster that calls itself two minors newer (there is none
// yet): it is taken, and found to be one that nobody has tried.
func TestNewerAPIServer(t *testing.T) {
	const newer = "v1.39.0"
	require.Zero(t, os.Geteuid(), "this makes network namespaces: run the tests as root (sudo make test-long)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &story.Story{Root: root, Dir: filepath.Join(root, ".build", "newer"), Out: t.Output(), Kubernetes: newer}
	ctx := t.Context()
	require.NoError(t, s.TakePrograms(ctx, filepath.Join(root, ".build", "story")))
	require.NoError(t, s.Build(ctx))
	require.NoError(t, s.ClusterDown(ctx), "a run that was cut off left its cluster")
	t.Cleanup(func() { require.NoError(t, s.ClusterDown(context.Background())) })
	require.NoError(t, s.ClusterUpWith(ctx, 0))
	for _, args := range [][]string{{"apply", "-f", "charts/ainode/files/crds"}, {"wait", "--for=condition=Established", "crd", "--all", "--timeout=1m"}} {
		_, err := s.Kubectl(ctx, args...)
		require.NoError(t, err)
	}
	imported, err := s.Ainode(ctx, "import", story.Config)
	require.NoError(t, err)
	require.Contains(t, imported, "Kubernetes "+newer)
	_, err = s.Ainode(ctx, "doctor")
	var found *story.Failed
	require.ErrorAs(t, err, &found)
	require.Equal(t, 2, found.Code)
	require.Contains(t, found.Stdout, "‼ target-version: the API server is "+newer+"\n    AI nodes are tried with 1.35 to 1.37; it may work\n")
}
