package story

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testBucket is asked when the agent has been killed and started again: the
// same helper serves the same container.
func (s *Story) testBucket(t *testing.T) {
	require.Equal(t, "written in the pod\n", s.must(t, "exec", "ray-gpu", "--", "cat", "/oss-data/from-pod"))
	require.Contains(t, s.machineMounts(t), "fuse.s3fs")
	require.Contains(t, s.machineMounts(t), "/bucket-cache ext4 ")

	// Nobody is told a key but he who reads the PersistentVolume that holds it.
	told := s.must(t, "get", "events,pods,nodes,ainodes", "-A", "-o", "yaml")
	processes, err := s.quiet(t.Context(), "ps", "-eo", "args")
	require.NoError(t, err)
	told += processes
	logs, err := filepath.Glob(filepath.Join(s.Dir, "log", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, logs)
	for _, log := range logs {
		if info, err := os.Stat(log); err != nil || !info.Mode().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(log)
		require.NoError(t, err)
		told += string(raw)
	}
	require.Contains(t, processes, "passwd_file=", "this test does not see the helper, so it could not see its keys")
	for _, key := range []string{s.keys.id, s.keys.secret} {
		require.False(t, strings.Contains(told, key), "a key is told in an event, a status, a process list or a log")
	}
}

// machineMounts is the machine's own list of mounts.
func (s *Story) machineMounts(t *testing.T) string {
	t.Helper()
	out, err := s.devcluster(t.Context(), false, "exec", machine, "--", "cat", "/proc/self/mounts")
	require.NoError(t, err)
	return out
}

// testBucketGone is asked after unbind: nothing of the mount, and of the disk for what
// was read, is left on the machine,
// and all of it in the bucket.
func (s *Story) testBucketGone(t *testing.T) {
	require.NotContains(t, s.machineMounts(t), "fuse.s3fs")
	require.NotContains(t, s.machineMounts(t), "/bucket-cache ")
	processes, err := s.quiet(t.Context(), "ps", "-eo", "args")
	require.NoError(t, err)
	require.NotContains(t, processes, "url=http://"+gatewayAddress, "a helper outlived the pod")
	require.FileExists(t, s.bucketObject("from-pod"))
}
