package cgroup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFiguresOfBothVersions(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"version 1": {
			"cpuacct/pods/cpuacct.usage": "2500000000\n", "memory/pods/memory.usage_in_bytes": "1000\n",
			"memory/pods/memory.stat": "inactive_file 1\nrss 2\ntotal_inactive_file 300\ntotal_rss 400\ntotal_pgfault 5\ntotal_pgmajfault 6\n",
		},
		"version 2": {
			"cgroup.controllers": "cpu memory\n",
			"pods/cpu.stat":      "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n", "pods/memory.current": "1000\n",
			"pods/memory.stat": "anon 400\nfile 9\ninactive_file 300\npgfault 5\npgmajfault 6\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mount := t.TempDir()
			for path, text := range files {
				full := filepath.Join(mount, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
				require.NoError(t, os.WriteFile(full, []byte(text), 0o600))
			}
			got, err := Read(mount, "/pods")
			require.NoError(t, err)
			require.Equal(t, Figures{CPU: 2500 * time.Millisecond, Memory: 1000, WorkingSet: 700, RSS: 400, PageFaults: 5, MajorFaults: 6}, got)
			_, err = Read(mount, "/gone")
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}
