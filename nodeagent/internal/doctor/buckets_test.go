package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBuckets(t *testing.T) {
	c := newBench(t).Case
	c.Root = t.TempDir()
	tools := t.TempDir()
	t.Setenv("PATH", tools)
	look := func() []Finding { return buckets(t.Context(), &sight{Case: c}) }
	have := func(path string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o755))
	}
	requireSays := func(severity Severity, what string) {
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
	c.Config.BucketCacheSize = "much"
	requireSays(Error, "is not an amount")
	c.Config.BucketCacheSize = ""
	requireSays(OK, "what pods read is not kept (--bucket-cache-size)")
}
