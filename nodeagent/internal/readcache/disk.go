package readcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Open mounts the file system, unless it is, with what an earlier agent's pods have in
// it: then also its size stays what it was. Where nothing is to be cached any more, one
// that nobody uses is taken away.
func (c *Cache) Open(ctx context.Context) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	if c.o.Size == 0 {
		return nil
	}
	// What an agent that was killed was about to remove.
	trash := filepath.Join(c.o.Target, trashDir)
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("remove what is left of a cache: %w", err)
	}
	if err := os.Mkdir(trash, 0o700); err != nil {
		return fmt.Errorf("make the folder of what is removed: %w", err)
	}
	return nil
}

func (c *Cache) open(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	mounted, err := c.mounted()
	if err != nil {
		return err
	}
	if c.o.Size == 0 {
		if mounted {
			err = c.unmount(0)
		}
		if errors.Is(err, unix.EBUSY) {
			return nil
		}
		return err
	}
	// What one that was killed meanwhile has left.
	if err := os.Remove(c.o.Image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a cache that is not mounted: %w", err)
	}
	if mounted {
		return nil
	}
	return c.mount(ctx)
}

func (c *Cache) mount(ctx context.Context) error {
	for _, dir := range []string{c.o.Target, filepath.Dir(c.o.Image)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the cache's folder: %w", err)
		}
	}
	if err := c.fits(ctx); err != nil {
		return err
	}
	image, err := os.OpenFile(c.o.Image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the cache's file: %w", err)
	}
	// Without its name it is there as long as it is mounted.
	defer func() { _ = os.Remove(c.o.Image) }()
	if err := errors.Join(c.reserve(image), image.Close()); err != nil {
		return err
	}
	// No journal: what a crash would leave is not used again.
	format := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-m", "0", "-i", "65536", "-O", "^has_journal", "-E", "nodiscard", c.o.Image)
	if out, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("make the cache's file system: %w: %s", err, strings.TrimSpace(string(out)))
	}
	// Not discard, which would give back to the disk below what is removed. noinit_itable:
	// the kernel does not fill it with empty tables.
	if err := c.o.Mounter.Mount(c.o.Image, c.o.Target, "ext4", []string{"loop", "noinit_itable", "noatime", "nosuid", "nodev", "noexec"}); err != nil {
		return fmt.Errorf("mount the cache: %w", err)
	}
	if err := os.Chmod(c.o.Target, 0o700); err != nil {
		return fmt.Errorf("close the cache to others: %w", err)
	}
	return nil
}

// fits is an error where so much would be taken of the disk that the node is under pressure
// from then on: pods would be evicted one by one for what none of them can give back. What
// an image has that is mounted, or was, is not asked for again: that one stays or is gone.
func (c *Cache) fits(ctx context.Context) error {
	dir := filepath.Dir(c.o.Image)
	if c.o.Floor == nil {
		return nil
	}
	disk, err := machine.DiskOf(dir)
	if err != nil {
		return fmt.Errorf("make the cache's file: %w", err)
	}
	floor, signal := c.o.Floor(ctx, disk)
	left := disk.Available - floor
	if floor <= 0 || c.o.Size <= left {
		return nil
	}
	const mib = 1 << 20
	return fmt.Errorf("the cache of buckets takes %d MiB at once, and the disk of %s has %d MiB free, of which %d MiB must stay so, or the node is under disk pressure and pods are evicted (%s of --eviction-hard): "+
		"that leaves %d MiB. Make the cache smaller (--bucket-cache-size), free some of the disk, or put it on another one (--bucket-cache-dir)",
		c.o.Size/mib, dir, disk.Available/mib, (floor+mib-1)/mib, signal, max(left, 0)/mib)
}

// reserve takes the whole size of the disk at once. A file with holes would find the disk
// full one day, and a page that could not be written is read as zeros.
func (c *Cache) reserve(image *os.File) error {
	err := unix.Fallocate(int(image.Fd()), 0, 0, c.o.Size)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("the disk of %s has no %d MiB free for the cache of buckets (--bucket-cache-size), which takes them at once: %w", filepath.Dir(c.o.Image), c.o.Size>>20, err)
	case err != nil:
		return fmt.Errorf("set aside %d MiB in %s for the cache of buckets (--bucket-cache-size), on a file system that can do so (fallocate), as ext4 and xfs: %w", c.o.Size>>20, filepath.Dir(c.o.Image), err)
	}
	return nil
}

// Close takes the file system away with all that is in it: at once from all eyes, and
// from the disk when the last who looks into it has gone. It is idempotent.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mounted, err := c.mounted(); err != nil || !mounted {
		return err
	}
	return c.unmount(unix.MNT_DETACH)
}

func (c *Cache) unmount(flags int) error {
	if err := unix.Unmount(c.o.Target, unix.UMOUNT_NOFOLLOW|flags); err != nil {
		return fmt.Errorf("unmount the cache: %w", err)
	}
	return os.Remove(c.o.Target)
}

// mounted asks the machine.
func (c *Cache) mounted() (bool, error) {
	is, err := c.o.Mounter.IsMountPoint(c.o.Target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the cache: %w", err)
	}
	return is, nil
}
