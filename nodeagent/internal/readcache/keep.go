package readcache

import (
	"context"
	"fmt"
	"os"
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
		var s unix.Statfs_t
		if err := unix.Statfs(c.o.Target, &s); err != nil {
			return false, fmt.Errorf("measure the cache: %w", err)
		}
		return s.Bavail < s.Blocks/roomy, nil
	})
}

// RemoveIdle frees the disk of all that no mount has.
func (c *Cache) RemoveIdle() error {
	return c.removeIdle(func(idleCache) (bool, error) { return true, nil })
}

// removeIdle removes the oldest first, as long as each is to go.
func (c *Cache) removeIdle(remove func(idleCache) (bool, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle, err := c.idle()
	if err != nil {
		return err
	}
	for _, i := range idle {
		if goes, err := remove(i); err != nil || !goes {
			return err
		}
		if err := os.RemoveAll(i.path); err != nil {
			return fmt.Errorf("remove an idle cache: %w", err)
		}
	}
	return nil
}
