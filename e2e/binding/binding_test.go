package binding

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBinding brings up two clusters and three machines, and walks nodes between
// them.
func TestBinding(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this makes network namespaces and runs containerd: run the tests as root (sudo make test)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &stage{a: newPlane(t, root, "a"), b: newPlane(t, root, "b"), kubeconfig: filepath.Join(t.TempDir(), "both")}
	ctx := t.Context()
	require.NoError(t, s.a.TakePrograms(ctx, filepath.Join(root, ".build", "story")))
	require.NoError(t, s.a.Build(ctx))
	require.NoError(t, s.b.TakePrograms(ctx, s.a.Dir))
	require.NoError(t, s.b.Build(ctx)) // what was not there to be taken, where no story has run before
	for _, p := range []*plane{s.a, s.b} {
		require.NoError(t, p.ClusterDown(ctx), "a run that was cut off left its cluster")
		t.Cleanup(func() { require.NoError(t, p.ClusterDown(context.Background())) })
	}
	require.NoError(t, s.a.up(ctx, 3))
	require.NoError(t, s.b.up(ctx, 0, "parts.hub=false"))
	_, err = s.a.devcluster(ctx, "connect", s.b.Dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.tellWhatStands(t)
		}
	})
	machines := s.a.Cluster().Machines
	s.one, s.two, s.clone = machine{machines[0], "ai-one"}, machine{machines[1], "ai-two"}, machine{machines[2], "ai-two"}
	s.writeKubeconfig(t, s.kubeconfig, nil)

	// What the other parts build on.
	must := func(name string, test func(*testing.T)) {
		t.Helper()
		if !t.Run(name, test) {
			t.FailNow()
		}
	}
	must("a person is given the role", s.testRights)
	must("two machines join", func(t *testing.T) { s.join(t, s.one); s.join(t, s.two) })
	must("nodes move between clusters", s.testMoves)
	must("an end that draws near is moved", s.testExtended)
	// Most of the time of the second is waiting for what runs out.
	must("at once", func(t *testing.T) {
		t.Run("killed with each write", func(t *testing.T) { t.Parallel(); s.testInterruptions(t); s.testKilledAgent(t) })
		t.Run("a machine is cut off", func(t *testing.T) { t.Parallel(); s.testCutOff(t); s.testForced(t) })
	})
	must("the Node is deleted", s.testDeletedNode)
	must("keys rotated, target and hub restored", s.testRestored)
	must("two binds want one range", s.testOneRange)
	must("a copied disk", s.testClone) // what it complains of stands for a while, and keeps others from binding
	must("another machine is given the name", s.testSuccessor)
}
