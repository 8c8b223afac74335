// Package readcache keeps on the machine's disk what pods have read from buckets. The
// FUSE helpers write and read it by themselves; this room gives each a folder, sees to
// it that all together stay within a limit, and takes away what nobody needs.
//
// The limit is a file system of that size, in a file of the machine's disk which has no
// name: no helper can get over it, however fast it reads, and a machine that boots has
// nothing left of it. Helpers make room in it by themselves (ensure_diskfree). It holds
//
//	used/UID/VOLUME/DIGEST   what a pod's mount caches in, "once" where it goes with it
//	idle/DIGEST.TIME         what a mount that has ended left, for the next of the same
//	trash/RANDOM             what is being removed
//	salt                     what digests are made with
//
// Two helpers never share a folder: each believes of what is loaded what it has seen
// itself, and one that makes room makes the other read zeros.
package readcache

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Options of a Cache. All but Size and Floor are required.
type Options struct {
	// Target is where the file system is mounted.
	Target string
	// Image is the file that it lies in, while it is made.
	Image string
	// Size of the file system in bytes; 0: there is none.
	Size int64
	// Floor is how much of the image's disk must stay free, in bytes, or pods are evicted
	// for it, and the eviction signal that says so. May be nil: nothing must.
	Floor   func(ctx context.Context, disk machine.Disk) (bytes int64, signal string)
	Mounter mount.Interface
	Clock   clock.WithTicker
}

// Cache is safe for concurrent use.
type Cache struct {
	o  Options
	mu sync.Mutex
}

// New makes a Cache; Open mounts it.
func New(o Options) *Cache { return &Cache{o: o} }

const (
	usedDir = "used"
	idleDir = "idle"
	// trashDir is where what is removed goes first, by one rename under the lock: that
	// of a large cache takes seconds, which nobody else's mount is to wait.
	trashDir = "trash"
	saltKey  = "salt"
	saltLen  = 32
	// once is a folder that serves one mount alone.
	once = "once"
)

// EnsureFree is how much of the file system a helper is to leave free, in bytes: what
// several may be about to write at once.
func (c *Cache) EnsureFree() int64 { return min(max(c.o.Size/16, 64<<20), 1<<30) }

// Salt is what digests are made with, nil where nothing is cached. It is this file
// system's own, so that a digest, which stands in a helper's arguments, tells nobody
// whether he has guessed a key.
func (c *Cache) Salt() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mounted, err := c.mounted(); err != nil || !mounted || c.o.Size == 0 {
		return nil, err
	}
	path := filepath.Join(c.o.Target, saltKey)
	if salt, err := os.ReadFile(path); err == nil && len(salt) == saltLen {
		return salt, nil
	}
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // never fails
	if err := os.WriteFile(path, salt, 0o600); err != nil {
		return nil, fmt.Errorf("make the cache's salt: %w", err)
	}
	return salt, nil
}

// Take gives the pod's volume a folder to cache in: what a mount with that digest has
// left, or an empty one; without a digest one that goes with this mount. What an earlier
// helper of this very volume had is thrown away, since it has not ended well.
//
// A helper does not start where it finds less free than EnsureFree and start, in bytes.
// Idle caches go for it, its own the last; if that is not enough it gets no folder.
func (c *Cache) Take(uid types.UID, volume, digest string, start int64) (string, error) {
	at := c.used(uid, volume)
	if err := c.remove(at); err != nil {
		return "", fmt.Errorf("remove what a helper has left: %w", err)
	}
	for {
		folder, goes, err := c.takeIfRoom(at, digest, c.EnsureFree()+start)
		if err != nil || goes == "" {
			return folder, err
		}
		if err := os.RemoveAll(goes); err != nil {
			return "", fmt.Errorf("remove an idle cache: %w", err)
		}
	}
}

// takeIfRoom is Take where so much is free, in bytes. Where it is not it returns what is
// to be removed first, which is in the trash already.
func (c *Cache) takeIfRoom(at, digest string, need int64) (folder, goes string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left, err := c.room(digest, need)
	if err != nil {
		return "", "", err
	}
	if left.goes != "" {
		goes, err = c.discard(left.goes)
		return "", goes, err
	}
	if !left.enough {
		return "", "", nil
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return "", "", fmt.Errorf("make the cache's folder: %w", err)
	}
	folder = filepath.Join(at, cmp.Or(digest, once))
	if left.idle != "" {
		return folder, "", os.Rename(left.idle, folder)
	}
	return folder, "", os.Mkdir(folder, 0o700)
}

// Give takes the folder back from a volume whose helper has ended, well or not. It is
// kept for the next mount with its digest if it has one and all in it is whole.
func (c *Cache) Give(uid types.UID, volume string, well bool) error {
	at := c.used(uid, volume)
	if err := c.keep(at, well); err != nil {
		return err
	}
	if err := c.remove(at); err != nil {
		return fmt.Errorf("remove the cache of a volume: %w", err)
	}
	return nil
}

// keep puts away what may serve others.
func (c *Cache) keep(at string, well bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	folders, err := os.ReadDir(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the cache of a volume: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(c.o.Target, idleDir), 0o700); err != nil {
		return fmt.Errorf("make the folder of idle caches: %w", err)
	}
	for _, f := range folders {
		if !well || f.Name() == once {
			continue
		}
		name := f.Name() + "." + strconv.FormatInt(c.o.Clock.Now().UnixNano(), 10)
		if err := os.Rename(filepath.Join(at, f.Name()), filepath.Join(c.o.Target, idleDir, name)); err != nil {
			return fmt.Errorf("keep the cache of a volume: %w", err)
		}
	}
	return nil
}

// Drop removes all that the pod's volumes still have.
func (c *Cache) Drop(uid types.UID) error {
	if err := c.remove(filepath.Join(c.o.Target, usedDir, string(uid))); err != nil {
		return fmt.Errorf("remove the caches of a pod: %w", err)
	}
	return nil
}

// remove removes a folder, if it is there: from its place at once, under the lock, from
// the disk without it.
func (c *Cache) remove(path string) error {
	c.mu.Lock()
	gone, err := c.discard(path)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// discard puts a folder into the trash, and returns where it is now: empty if it was not
// there. Callers hold mu.
func (c *Cache) discard(path string) (gone string, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	// It is there since Open, mostly: where nothing is free, none can be made.
	trash := filepath.Join(c.o.Target, trashDir)
	_ = os.Mkdir(trash, 0o700)
	gone = filepath.Join(trash, rand.Text())
	return gone, os.Rename(path, gone)
}

func (c *Cache) used(uid types.UID, volume string) string {
	return filepath.Join(c.o.Target, usedDir, string(uid), volume)
}

// idleCache is one that no mount has.
type idleCache struct {
	path, digest string
	since        time.Time
}

// idle are all that no mount has, the oldest first.
func (c *Cache) idle() ([]idleCache, error) {
	directory := filepath.Join(c.o.Target, idleDir)
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list idle caches: %w", err)
	}
	var all []idleCache
	for _, e := range entries {
		digest, at, _ := strings.Cut(e.Name(), ".")
		nanoseconds, _ := strconv.ParseInt(at, 10, 64) // what has no time is the oldest
		all = append(all, idleCache{filepath.Join(directory, e.Name()), digest, time.Unix(0, nanoseconds)})
	}
	slices.SortFunc(all, func(a, b idleCache) int { return cmp.Compare(a.since.UnixNano(), b.since.UnixNano()) })
	return all, nil
}
