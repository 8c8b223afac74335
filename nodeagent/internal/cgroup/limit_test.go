package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// read returns FILE=CONTENT of the cgroup's files of either version below mount.
func read(t *testing.T, mount, path string) []string {
	t.Helper()
	var all []string
	for _, w := range writes(mount, path, Limits{}) {
		content, err := os.ReadFile(w.file)
		require.NoError(t, err)
		all = append(all, filepath.Base(w.file)+"="+strings.TrimSpace(string(content)))
	}
	return all
}

func TestLimitOfVersion2(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(mount, "cgroup.controllers"), nil, 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(mount, "pods/a"), 0o755))
	for _, w := range writes(mount, "/pods/a", Limits{}) {
		require.NoError(t, os.WriteFile(w.file, nil, 0o600)) // the kernel's are there
	}
	require.NoError(t, Limit(mount, "/pods/a", Limits{CPUShares: 1024, CPUQuota: 150000, CPUPeriod: 100000, Memory: 1 << 20}))
	require.Equal(t, []string{"cpu.weight=39", "cpu.max=150000 100000", "memory.max=1048576"}, read(t, mount, "/pods/a"))
	require.NoError(t, Limit(mount, "pods/a", Limits{CPUShares: 2, CPUQuota: None, CPUPeriod: 100000, Memory: None}))
	require.Equal(t, []string{"cpu.weight=1", "cpu.max=max 100000", "memory.max=max"}, read(t, mount, "/pods/a"))
	require.Equal(t, int64(10000), weight(262144))
}

// The machine's own cgroups, of whichever version.
func TestLimit(t *testing.T) {
	t.Parallel()
	const path = "/ainode-limit-test"
	all, err := hierarchies(Mount)
	require.NoError(t, err)
	for _, h := range all {
		_ = os.Mkdir(filepath.Join(h, path), 0o755) // those that are read-only do without
	}
	t.Cleanup(func() { require.NoError(t, Remove(Mount, path)) })
	require.NoError(t, Limit(Mount, path, Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 64 << 20}))
	got := read(t, Mount, path)
	require.Contains(t, strings.Join(got, " "), "67108864")
	require.Contains(t, strings.Join(got, " "), "50000")
	require.NoError(t, Limit(Mount, path, Limits{CPUShares: 2, CPUQuota: None, CPUPeriod: 100000, Memory: None}))
	require.NotContains(t, strings.Join(read(t, Mount, path), " "), "67108864")

	require.NoError(t, Limit(Mount, "", Limits{}))
	require.ErrorIs(t, Limit(Mount, "/ainode-none", Limits{}), os.ErrNotExist)
}
