package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/ossfs"
)

// buckets looks for what mounts them. A machine whose pods have none needs none of it;
// one that is to keep what they read needs all.
func buckets(ctx context.Context, s *sight) []diagnosis.Finding {
	lacking, fix := "", ""
	helper := ""
	for _, h := range ossfs.Helpers {
		if path, err := exec.LookPath(string(h)); err == nil && helper == "" {
			helper = path
		}
	}
	if helper == "" {
		lacking, fix = "neither ossfs nor s3fs is installed", "Install one:  apt-get install s3fs"
	}
	if _, err := os.Stat(filepath.Join(s.Root, "dev/fuse")); err != nil {
		lacking, fix = "there is no FUSE device", "Load the kernel's module:  modprobe fuse"
	}
	size, err := s.Config.BucketCache()
	if err != nil {
		return found(Error, fmt.Sprintf("--bucket-cache-size %q is not an amount", s.Config.BucketCacheSize), "the agent does not start")
	}
	switch {
	case lacking != "" && size == 0:
		return saw(lacking + ": pods that have buckets would wait (" + fix + ")")
	case lacking != "":
		return found(Warning, lacking, "pods that have buckets wait", fix)
	case size == 0:
		return saw(helper + "; what pods read is not kept (--bucket-cache-size)")
	}
	return append(saw(fmt.Sprintf("%s; %s may hold what pods read", helper, s.Config.BucketCacheSize)), bucketCache(ctx, s, size)...)
}

// bucketCache looks for what keeps the cache within its size.
func bucketCache(ctx context.Context, s *sight, size int64) []diagnosis.Finding {
	const why = "buckets are mounted, and what pods read of them is not kept"
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return found(Warning, "mkfs.ext4 is not installed", why, "Install it:  apt-get install e2fsprogs")
	}
	if _, err := os.Stat(filepath.Join(s.Root, "dev/loop-control")); err != nil {
		return found(Warning, "there is no loop device", why, "Load the kernel's module:  modprobe loop")
	}
	dir := standing(cmp.Or(s.Config.BucketCacheDir, string(s.Config.StateDir)))
	disk, err := machine.DiskOf(dir)
	if err != nil {
		return found(Warning, err.Error(), why)
	}
	// While it is mounted, it has what it needs.
	cache, cacheErr := machine.DiskOf(s.Config.StateDir.BucketCache())
	state, stateErr := machine.DiskOf(standing(string(s.Config.StateDir)))
	if cacheErr == nil && stateErr == nil && cache.Device != state.Device {
		return nil
	}
	thresholds, err := eviction.Parse(s.Config.EvictionHard)
	if err != nil {
		return found(Error, err.Error(), "the agent does not start")
	}
	floor, _ := s.machine().Floor(ctx, thresholds, disk)
	if left := max(disk.Available-floor, 0); size > left {
		return found(Warning, fmt.Sprintf("the cache of buckets takes %s at once, and %s has %d MiB for it beside the %d MiB that must stay free (--eviction-hard)",
			s.Config.BucketCacheSize, dir, left>>20, floor>>20), why, "Make it smaller (--bucket-cache-size), or put it on a larger disk:  ainode-agent run --bucket-cache-dir DIR")
	}
	return nil
}
