package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/config"
)

// A cache that is mounted has its disk, however full that is now.
func TestMountedCacheIsNotMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: this test mounts")
	}
	c := newBench(t).Case
	c.Root = "/"
	c.Config.StateDir = config.State(t.TempDir())
	c.Config.BucketCacheDir, c.Config.BucketCacheSize, c.Config.EvictionHard = t.TempDir(), "1Gi", "nodefs.available<1Ei"
	at := c.Config.StateDir.BucketCache()
	require.NoError(t, os.MkdirAll(at, 0o700))
	look := func() []diagnosis.Finding { return bucketCache(t.Context(), &sight{Case: c}, 1<<30) }
	require.Len(t, look(), 1, "its folder alone is none")
	require.NoError(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, 0)) })
	require.Empty(t, look())
}

func TestBuckets(t *testing.T) {
	c := newBench(t).Case
	c.Root = t.TempDir()
	tools := t.TempDir()
	t.Setenv("PATH", tools)
	look := func() []diagnosis.Finding { return buckets(t.Context(), &sight{Case: c}) }
	have := func(path string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o755))
	}
	requireSays := func(severity diagnosis.Severity, what string) {
		t.Helper()
		all := look()
		last := all[len(all)-1]
		require.Contains(t, last.What, what)
		require.Equal(t, severity, last.Severity)
	}

	requireSays(OK, "pods that have buckets would wait (Load the kernel's module:  modprobe fuse)")
	c.Config.BucketCacheSize = "1Gi"
	requireSays(Warning, "there is no FUSE device")
	have(filepath.Join(c.Root, "dev/fuse"))
	requireSays(Warning, "neither ossfs nor s3fs is installed")
	have(filepath.Join(tools, "s3fs"))
	requireSays(Warning, "mkfs.ext4 is not installed")
	have(filepath.Join(tools, "mkfs.ext4"))
	requireSays(Warning, "there is no loop device")
	have(filepath.Join(c.Root, "dev/loop-control"))
	requireSays(OK, "s3fs; 1Gi may hold what pods read")
	c.Config.BucketCacheSize = "1Ei"
	requireSays(Warning, "the cache of buckets takes 1Ei at once")
	c.Config.BucketCacheSize, c.Config.EvictionHard = "1Gi", "nodefs.available<1Ei"
	requireSays(Warning, "has 0 MiB for it beside the 1099511627776 MiB that must stay free (--eviction-hard)")
	c.Config.EvictionHard = config.Default().EvictionHard
	c.Config.BucketCacheSize = "much"
	requireSays(Error, "is not an amount")
	c.Config.BucketCacheSize = ""
	requireSays(OK, "what pods read is not kept (--bucket-cache-size)")
}
