package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/podtest"
)

// A file that can't be read, or holds another pod, is told beside those that can.
func TestWhatIsRememberedOfPods(t *testing.T) {
	t.Parallel()
	store := Store{Dir: filepath.Join(t.TempDir(), "pods")}
	points, err := store.Load()
	require.NoError(t, err)
	require.Empty(t, points, "nothing was ever remembered")

	want := Checkpoint{Pod: podtest.Pod("", "a"), Cards: map[string][]string{"a": {"GPU-0"}}, Epoch: 7}
	require.NoError(t, store.Save("u1", want))
	require.NoError(t, store.Save("another", want))
	require.NoError(t, os.WriteFile(filepath.Join(store.Dir, "cut.json"), []byte("{"), 0o600))
	info, err := os.Stat(filepath.Join(store.Dir, "u1.json"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode(), "it may hold secrets")
	points, err = store.Load()
	require.ErrorContains(t, err, `read remembered pod "another": it holds another pod`)
	require.ErrorContains(t, err, `read remembered pod "cut": `)
	require.Equal(t, map[types.UID]Checkpoint{"u1": want}, points)

	require.NoError(t, store.Remove("u1"))
	require.NoError(t, store.Remove("u1"), "again")
	points, _ = store.Load()
	require.Empty(t, points)
	require.NoError(t, store.Clear())
	require.NoDirExists(t, store.Dir)
}
