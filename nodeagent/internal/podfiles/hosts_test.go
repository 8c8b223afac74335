package podfiles

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHostsFileStaysTheSameFile(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/uid/etc-hosts"
	require.NoError(t, writeInPlace(file, "one"))
	before, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("two"), 0o600))
	require.NoError(t, writeInPlace(file, "one"))
	after, err := os.Stat(file)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "containers have it mounted")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "one", string(text))
	require.EqualValues(t, 0o644, after.Mode())
}
