package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRemove(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ made, want []string }{
		"version 1": {
			[]string{"cpu/ainode/podA/c1", "cpu/ainode/podB", "memory/ainode/podA", "pids"},
			[]string{"cpu/ainode/podB", "memory/ainode", "pids"},
		},
		"version 2": {[]string{"ainode/podA/c1/deep", "ainode/podB"}, []string{"ainode/podB"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mount := t.TempDir()
			if name == "version 2" {
				require.NoError(t, os.WriteFile(filepath.Join(mount, "cgroup.controllers"), nil, 0o600))
			}
			for _, path := range test.made {
				require.NoError(t, os.MkdirAll(filepath.Join(mount, path), 0o755))
			}
			require.NoError(t, Remove(mount, "/ainode/podA"))
			require.NoError(t, Remove(mount, "/ainode/podA"), "twice")
			for _, path := range test.want {
				require.DirExists(t, filepath.Join(mount, path))
			}
			for _, path := range []string{"ainode/podA", "cpu/ainode/podA", "memory/ainode/podA"} {
				require.NoDirExists(t, filepath.Join(mount, path))
			}
			for _, nothing := range []string{"", "/", ".", ".."} {
				require.NoError(t, Remove(mount, nothing))
			}
			require.DirExists(t, filepath.Join(mount, test.want[0]))
		})
	}
}
