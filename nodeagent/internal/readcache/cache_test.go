package readcache

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

const size = 128 << 20

type fixture struct {
	*Cache
	t     *testing.T
	clock *testclock.FakeClock
}

// newFixture is a cache on a real disk.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test mounts")
	}
	require.Zero(t, os.Geteuid(), "these tests mount: run them as root, or leave them out with -short")
	dir := t.TempDir()
	clock := testclock.NewFakeClock(time.Unix(1_800_000_000, 0))
	f := &fixture{t: t, clock: clock, Cache: New(Options{
		Target: filepath.Join(dir, "cache"), Image: filepath.Join(dir, "disk", "image"), Size: size, Mounter: mount.New(""), Clock: clock,
	})}
	require.NoError(t, f.Open(t.Context()))
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// again is the cache of the next agent.
func (f *fixture) again(size int64) *fixture {
	o := f.o
	o.Size = size
	return &fixture{Cache: New(o), t: f.t, clock: f.clock}
}

func (f *fixture) take(uid, digest string) string {
	f.t.Helper()
	dir, err := f.Take(types.UID("pod-"+uid), "data", digest, 0)
	require.NoError(f.t, err)
	require.NotEmpty(f.t, dir)
	f.clock.Step(time.Second)
	return dir
}

func (f *fixture) give(uid string, well bool) {
	f.t.Helper()
	require.NoError(f.t, f.Give(types.UID("pod-"+uid), "data", well))
	f.clock.Step(time.Second)
}

// soon is what holds when nobody uses a file any more that was closed: a process that another
// test is just starting has what is open here, until it has begun.
func soon(t *testing.T, holds func(*assert.CollectT)) {
	t.Helper()
	require.EventuallyWithT(t, holds, time.Minute, 10*time.Millisecond)
}

// fill writes mebibytes.
func fill(dir string, mebibytes int) error {
	for i := range mebibytes {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), make([]byte, 1<<20), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f *fixture) mustFill(dir string, mebibytes int) {
	f.t.Helper()
	require.NoError(f.t, fill(dir, mebibytes))
}

func TestNobodyGetsOverTheLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.ErrorIs(t, fill(f.take("one", "a"), size>>20), unix.ENOSPC)
	var s unix.Statfs_t
	require.NoError(t, unix.Statfs(f.o.Target, &s))
	require.LessOrEqual(t, s.Blocks*uint64(s.Bsize), uint64(size))
	info, err := os.Stat(f.o.Target)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoFileExists(t, f.o.Image, "it has no name: a boot leaves nothing")
}

func TestWhatEndedWellServesTheNext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.take("one", "a")
	f.mustFill(first, 1)
	other := f.take("two", "a")
	require.NotEqual(t, first, other, "two never share one")
	require.NoFileExists(t, filepath.Join(other, "0"))
	f.give("one", true)
	require.NoDirExists(t, first)
	require.FileExists(t, filepath.Join(f.take("three", "a"), "0"))
	require.NoFileExists(t, filepath.Join(f.take("four", "a"), "0"), "it is given once")

	for name, given := range map[string]func(){
		"its helper has not ended well": func() { f.give("three", false) },
		"another digest":                func() { f.mustFill(f.take("three", "b"), 1); f.give("three", true) },
		"none":                          func() { f.mustFill(f.take("three", ""), 1); f.give("three", true) },
		"it was not given":              func() { f.mustFill(f.take("three", "a"), 1) },
	} {
		given()
		require.NoFileExists(t, filepath.Join(f.take("three", "a"), "0"), name)
	}
	require.NoError(t, f.Drop("pod-three"))
	require.NoDirExists(t, filepath.Join(f.o.Target, usedDir, "pod-three"))
}

func TestIdleCachesMakeRoom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, uid := range []string{"one", "two"} {
		f.mustFill(f.take(uid, uid), 30)
		f.give(uid, true)
	}
	require.NoError(t, f.look())
	idle, err := f.idle()
	require.NoError(t, err)
	require.Len(t, idle, 2)

	f.mustFill(f.take("three", "c"), 40)
	require.NoError(t, f.look())
	idle, err = f.idle()
	require.NoError(t, err)
	require.Len(t, idle, 1)
	require.Equal(t, "two", idle[0].digest, "the oldest goes first")

	f.clock.Step(longIdle)
	require.NoError(t, f.look())
	idle, err = f.idle()
	require.NoError(t, err)
	require.Empty(t, idle)
}

// A helper that finds too little free does not start at all.
func TestRoomIsMadeForTheNext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const start = 30 << 20
	for _, uid := range []string{"own", "other"} {
		f.mustFill(f.take(uid, uid), 18)
		f.give(uid, true)
	}
	idle := func() (digests []string) {
		all, err := f.idle()
		require.NoError(t, err)
		for _, i := range all {
			digests = append(digests, i.digest)
		}
		return digests
	}
	dir, err := f.Take("pod-next", "data", "own", start)
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "0"), "another's is enough, though its own is older")
	require.Empty(t, idle())

	f.mustFill(dir, 40)
	f.give("next", true)
	dir, err = f.Take("pod-next", "data", "own", start)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(dir, "0"), "its own is too large")

	f.mustFill(dir, 40)
	f.give("next", true)
	f.mustFill(f.take("busy", "busy"), 50)
	dir, err = f.Take("pod-next", "data", "own", start)
	require.NoError(t, err)
	require.Empty(t, dir, "others need it all")
	require.NoDirExists(t, filepath.Join(f.o.Target, usedDir, "pod-next", "data"))
}

func TestTheNextAgentFindsIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mustFill(f.take("one", "a"), 1)
	salt, err := f.Salt()
	require.NoError(t, err)
	require.Len(t, salt, saltLen)

	// kill -9 has left the name.
	require.NoError(t, os.WriteFile(f.o.Image, nil, 0o600))
	next := f.again(size)
	require.NoError(t, next.Open(t.Context()))
	require.NoFileExists(t, f.o.Image)
	again, err := next.Salt()
	require.NoError(t, err)
	require.Equal(t, salt, again)
	next.give("one", true)

	// It is not asked for any more, but a helper still uses it.
	file := filepath.Join(next.take("two", "a"), "0")
	open, err := os.Open(file)
	require.NoError(t, err)
	last := f.again(0)
	require.NoError(t, last.Open(t.Context()))
	require.FileExists(t, file)
	salt, err = last.Salt()
	require.NoError(t, err)
	require.Nil(t, salt, "nobody else gets any of it")
	require.NoError(t, open.Close())
	soon(t, func(t *assert.CollectT) {
		require.NoError(t, last.Open(f.t.Context()))
		require.NoDirExists(t, f.o.Target)
	})
	require.NoError(t, last.Close(), "it is idempotent")
}

// At an unbinding, whoever looks into it.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := f.take("one", "a")
	f.mustFill(dir, 1)
	open, err := os.Open(dir)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoDirExists(t, f.o.Target)
	require.NoError(t, open.Close())
	require.NoError(t, f.Open(t.Context()))
	require.NoDirExists(t, dir)
	entries, err := os.ReadDir(filepath.Dir(f.o.Image))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// The disk below may run full: what is cached is on it already.
func TestTheWholeSizeIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	image, err := os.Create(filepath.Join(t.TempDir(), "image"))
	require.NoError(t, err)
	require.NoError(t, f.reserve(image))
	info, err := image.Stat()
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
	require.GreaterOrEqual(t, info.Sys().(*syscall.Stat_t).Blocks*512, int64(size))
	require.NoError(t, image.Close())
	mounts, err := f.o.Mounter.List()
	require.NoError(t, err)
	at := slices.IndexFunc(mounts, func(m mount.MountPoint) bool { return m.Path == f.o.Target })
	require.NotContains(t, mounts[at].Opts, "discard", "nothing of it is given back")

	small := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(small, unix.MNT_DETACH)) })
	o := f.o
	o.Image, o.Target = filepath.Join(small, "image"), filepath.Join(t.TempDir(), "other")
	err = New(o).Open(t.Context())
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "has no 128 MiB free for the cache of buckets (--bucket-cache-size), which takes them at once")
	require.NoFileExists(t, o.Image)
}

// The node would be under disk pressure as soon as the cache is there, and evict pods for
// disk that no pod can give back.
func TestWhatMustStayFreeIsNotTaken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	disk := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=300m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	o := f.o
	o.Image, o.Target = filepath.Join(disk, "image"), filepath.Join(t.TempDir(), "other")
	var floor int64
	o.Floor = func(_ context.Context, d machine.Disk) (int64, string) {
		require.EqualValues(t, 300<<20, d.Capacity)
		return floor, "nodefs.available"
	}
	c := New(o)
	t.Cleanup(func() { require.NoError(t, c.Close()) })

	floor = 172<<20 + 1
	require.EqualError(t, c.Open(t.Context()), "the cache of buckets takes 128 MiB at once, and the disk of "+disk+
		" has 300 MiB free, of which 173 MiB must stay so, or the node is under disk pressure and pods are evicted (nodefs.available of --eviction-hard): "+
		"that leaves 127 MiB. Make the cache smaller (--bucket-cache-size), free some of the disk, or put it on another one (--bucket-cache-dir)")
	require.NoFileExists(t, o.Image)
	left, err := machine.DiskOf(disk)
	require.NoError(t, err)
	require.EqualValues(t, 300<<20, left.Available, "nothing of it was taken, not even for a moment that lasts")
	floor = 300 << 20
	require.ErrorContains(t, c.Open(t.Context()), "that leaves 0 MiB.")

	// What an agent that was killed has left of it is not needed twice.
	require.NoError(t, os.WriteFile(o.Image, make([]byte, size), 0o600))
	floor = 172 << 20
	soon(t, func(t *assert.CollectT) { require.NoError(t, c.Open(f.t.Context())) })
	// Nor is one that is mounted, however full the disk is now.
	floor = 300 << 20
	require.NoError(t, New(o).Open(t.Context()))
}

// What is removed is out of the way before it is removed, and what a killed agent was
// about to remove goes when the next begins.
func TestTrashIsEmptied(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := f.take("one", "a")
	f.mustFill(dir, 1)
	gone, err := f.discard(filepath.Dir(dir))
	require.NoError(t, err)
	require.NoDirExists(t, dir)
	require.FileExists(t, filepath.Join(gone, "a", "0"))
	require.NoError(t, f.again(size).Open(t.Context()))
	require.NoDirExists(t, gone)
	f.mustFill(f.take("two", "b"), 1)
	require.NoError(t, f.Drop("pod-two"))
	left, err := os.ReadDir(filepath.Join(f.o.Target, trashDir))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestADiskThatCannotBeMadeIsTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.o
	o.Size, o.Target = 4096, filepath.Join(t.TempDir(), "small")
	small := New(o)
	require.ErrorContains(t, small.Open(t.Context()), "make the cache's file system")
	require.NoFileExists(t, o.Image)
	salt, err := small.Salt()
	require.NoError(t, err)
	require.Nil(t, salt)
}
