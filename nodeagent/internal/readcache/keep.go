package readcache

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

const (
	// every is how often it is looked whether idle caches are in the way. A look is one
	// statfs(2).
	every = 2 * time.Second
	// roomy is the part of the file system that idle caches leave free for those that
	// are used, whose helpers make room among their own files alone.
	roomy = 4
	// longIdle is how long one is kept that nobody takes.
	longIdle = 24 * time.Hour
)

// Run removes idle caches that are in the way or old, until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	if c.o.Size == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := c.o.Clock.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
		if err := c.look(); err != nil {
			klog.FromContext(ctx).Error(err, "An idle cache of a bucket could not be removed")
		}
	}
}

func (c *Cache) look() error {
	return c.removeIdle(func(i idleCache) (bool, error) {
		if c.o.Clock.Since(i.since) > longIdle {
			return true, nil
		}
		free, size, err := c.free()
		return free < size/roomy, err
	})
}

// free is how much of the file system is free, and how large it is, in bytes.
func (c *Cache) free() (free, size int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(c.o.Target, &s); err != nil {
		return 0, 0, fmt.Errorf("measure the cache: %w", err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

// room is how it stands for one that comes.
type room struct {
	enough bool
	// goes is the idle cache to remove first, empty if there is none, or enough is free.
	goes string
	// idle is the path of the newest idle cache with the digest, empty if there is none.
	idle string
}

// room looks whether that much is free, in bytes. Idle caches go for it, the oldest first
// and the digest's newest the last. Callers hold mu.
func (c *Cache) room(digest string, need int64) (room, error) {
	all, err := c.idle()
	if err != nil {
		return room{}, err
	}
	for i, one := range slices.Backward(all) {
		if one.digest == digest {
			all = append(slices.Delete(all, i, i+1), one)
			break
		}
	}
	free, _, err := c.free()
	if err != nil {
		return room{}, err
	}
	left := room{enough: free >= need}
	if n := len(all); n > 0 {
		if !left.enough {
			left.goes = all[0].path
		}
		if all[n-1].digest == digest {
			left.idle = all[n-1].path
		}
	}
	return left, nil
}

// removeIdle removes the oldest first, as long as each is to go.
func (c *Cache) removeIdle(remove func(idleCache) (bool, error)) error {
	for {
		gone, err := c.discardIdle(remove)
		if err != nil || gone == "" {
			return err
		}
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("remove an idle cache: %w", err)
		}
	}
}

// discardIdle puts the oldest into the trash, if it is to go.
func (c *Cache) discardIdle(remove func(idleCache) (bool, error)) (gone string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle, err := c.idle()
	if err != nil || len(idle) == 0 {
		return "", err
	}
	if goes, err := remove(idle[0]); err != nil || !goes {
		return "", err
	}
	return c.discard(idle[0].path)
}
