package volumes

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
	"github.com/ainode/ainode/nodeagent/internal/readcache"
)

const (
	cacheSize = 192 << 20
	modelSize = 32 << 20
)

// cached is a fixture with a cache, and counts what is downloaded.
type cached struct {
	*fixture
	gateway *s3test.Gateway
	cache   *readcache.Cache
	// proxy is where the bucket is asked for.
	proxy string
	// at is where the cache is mounted.
	at         string
	downloaded atomic.Int64
}

func newCached(t *testing.T) *cached {
	t.Helper()
	f, gateway := newBucket(t)
	c := &cached{fixture: f, gateway: gateway, at: filepath.Join(t.TempDir(), "cache")}
	c.cache = readcache.New(readcache.Options{
		Target: c.at, Image: filepath.Join(t.TempDir(), "image"), Size: cacheSize, Mounter: mount.New(""), Clock: clock.RealClock{},
	})
	require.NoError(t, c.cache.Open(t.Context()))
	t.Cleanup(func() { require.NoError(t, c.cache.Close()) })
	f.o.Cache = c.cache
	behind := &url.URL{Scheme: "http", Host: gateway.Address}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(behind)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method == http.MethodGet && strings.Contains(r.Request.URL.Path, "/weights") {
				c.downloaded.Add(r.ContentLength)
			}
			return nil
		},
	})
	t.Cleanup(proxy.Close)
	c.proxy = proxy.URL
	c.asks("-o use_cache=/tmp/ossfs", nil)
	return c
}

// asks binds the claim to a volume with those options.
func (c *cached) asks(options string, change func(map[string]string)) {
	c.bind(c.proxy, func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.CSI.VolumeAttributes["otherOpts"] = options
		if change != nil {
			change(v.Spec.CSI.VolumeAttributes)
		}
	})
}

// model puts an object of random content into the bucket, and tells its digest.
func (c *cached) model(t *testing.T, name string, size int) [sha256.Size]byte {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte([]byte(strings.Repeat(name, 32)))).Read(content)
	c.gateway.Bucket(t, "models", map[string]string{name: string(content)})
	return sha256.Sum256(content)
}

// reads requires that the mount shows the object, and tells how much was downloaded
// for it: helpers may load a piece twice.
func (c *cached) reads(t *testing.T, at, name string, want [sha256.Size]byte) int64 {
	t.Helper()
	before := c.downloaded.Load()
	f, err := os.Open(filepath.Join(at, name))
	require.NoError(t, err)
	digest := sha256.New()
	_, err = io.Copy(digest, f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, want[:], digest.Sum(nil), "%s is what is in the bucket", name)
	return c.downloaded.Load() - before
}

func reading(uid string) *corev1.Pod {
	pod := claiming(uid)
	pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	return pod
}

func (c *cached) end(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	c.teardown(t, pod.UID)
	require.NoDirExists(t, filepath.Join(c.at, "used", string(pod.UID)))
}

// What a pod has read is read again from the disk, by itself and by the next pod with
// the same keys, and by nobody else.
func TestBucketIsReadOnce(t *testing.T) {
	t.Parallel()
	c := newCached(t)
	digest := c.model(t, "weights", modelSize)
	one := reading("one")
	at := c.setup(t, one)
	require.GreaterOrEqual(t, c.reads(t, at, "weights", digest), int64(modelSize))
	require.Zero(t, c.reads(t, at, "weights", digest))

	two := reading("two")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, two), "weights", digest), int64(modelSize), "two living pods share none")
	c.end(t, two)
	c.end(t, one)

	three := reading("three")
	require.Zero(t, c.reads(t, c.setup(t, three), "weights", digest), "its successor has it")
	c.end(t, three)

	for name, options := range map[string]string{"its own alone": "-o use_cache -o del_cache", "nothing is asked for": ""} {
		c.asks(options, nil)
		pod := reading("four")
		require.GreaterOrEqual(t, c.reads(t, c.setup(t, pod), "weights", digest), int64(modelSize), name)
		c.end(t, pod)
	}

	// A key that is not good any more opens nothing, whatever is on the disk.
	c.asks("-o use_cache", func(a map[string]string) { a["akSecret"] = "revoked" })
	_, err := c.Setup(t.Context(), reading("five"))
	require.ErrorContains(t, err, "its secret is another")

	// A cache that is broken is as good as none.
	require.NoError(t, os.RemoveAll(filepath.Join(c.at, "idle")))
	require.NoError(t, os.RemoveAll(filepath.Join(c.at, "used")))
	require.NoError(t, os.WriteFile(filepath.Join(c.at, "used"), nil, 0o600))
	c.asks("-o use_cache", nil)
	broken := reading("broken")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, broken), "weights", digest), int64(modelSize))
	c.teardown(t, broken.UID)

	// No mount of the cache is to be seen where there is none.
	c.o.Cache = nil
	c.asks("-o use_cache", nil)
	six := reading("six")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, six), "weights", digest), int64(modelSize))
	c.end(t, six)
}

// What a helper has left that did not end well, or that somebody could write through,
// serves nobody.
func TestDoubtfulCachesAreThrownAway(t *testing.T) {
	t.Parallel()
	c := newCached(t)
	digest := c.model(t, "weights", modelSize)
	one := reading("one")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, one), "weights", digest), int64(modelSize))
	c.endHelper(t, one)
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, one), "weights", digest), int64(modelSize), "a new helper of the same pod")
	c.endHelper(t, one)
	c.end(t, one)

	writer := claiming("writer")
	at := c.setup(t, writer)
	require.GreaterOrEqual(t, c.reads(t, at, "weights", digest), int64(modelSize), "the next pod")
	require.Zero(t, c.reads(t, at, "weights", digest))
	require.NoError(t, os.WriteFile(filepath.Join(at, "new.txt"), []byte("new"), 0o600))
	object, err := c.gateway.Object("models", "new.txt")
	require.NoError(t, err)
	require.Equal(t, "new", object)
	c.end(t, writer)
	two := reading("two")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, two), "weights", digest), int64(modelSize), "after a writer")
	c.end(t, two)
}

// watched is a cache that looks when it is asked for a folder.
type watched struct {
	Cache
	taken func()
}

func (w watched) Take(uid types.UID, volume, digest string, start int64) (string, error) {
	w.taken()
	return w.Cache.Take(uid, volume, digest, start)
}

// A helper that has lost its mount but not its life, since a file is open: it could write
// where the next one caches.
func TestOldHelperIsGoneBeforeTheNextCaches(t *testing.T) {
	t.Parallel()
	c := newCached(t)
	digest := c.model(t, "weights", modelSize)
	pod := reading("one")
	at := c.setup(t, pod)
	open, err := os.Open(filepath.Join(at, "weights"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = open.Close() })
	require.NoError(t, unix.Unmount(at, unix.MNT_DETACH))
	ended := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // asked, not waited for
		return c.fuseMount(pod.UID, "data").Ended(ctx) == nil
	}
	require.False(t, ended())
	takes := 0
	c.o.Cache = watched{c.cache, func() { takes++; require.True(t, ended()) }}
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, pod), "weights", digest), int64(modelSize))
	require.Equal(t, 1, takes)
	c.end(t, pod)
}

// A bucket that is larger than the cache is read all the same, and never more of it is
// on the disk than the limit.
func TestCacheStaysWithinItsLimit(t *testing.T) {
	t.Parallel()
	c := newCached(t)
	pod := reading("one")
	at := c.setup(t, pod)
	var most uint64
	for _, name := range []string{"weights-1", "weights-2", "weights-3", "weights-4", "weights-5", "weights-1"} {
		c.reads(t, at, name, c.model(t, name, modelSize))
		var s unix.Statfs_t
		require.NoError(t, unix.Statfs(c.at, &s))
		most = max(most, (s.Blocks-s.Bfree)*uint64(s.Bsize))
	}
	t.Logf("of %d MiB read, at most %d MiB were on the disk, limit %d MiB", 6*modelSize>>20, most>>20, cacheSize>>20)
	require.Greater(t, most, uint64(modelSize))
	require.LessOrEqual(t, most, uint64(cacheSize))
	// One object that does not fit.
	c.reads(t, at, "weights-large", c.model(t, "weights-large", cacheSize+modelSize))
	c.teardown(t, pod.UID)
	c.openAtOnce(t)
}

// openAtOnce reads more than fits, all of which stays open: what can't be read says so,
// and nothing reads as what it is not.
func (c *cached) openAtOnce(t *testing.T) {
	t.Helper()
	pod := reading("many")
	at := c.setup(t, pod)
	var open []*os.File
	full := 0
	for i := range 6 {
		name := fmt.Sprintf("weights-open-%d", i)
		want := c.model(t, name, modelSize)
		f, err := os.Open(filepath.Join(at, name))
		require.NoError(t, err)
		open = append(open, f)
		digest := sha256.New()
		if _, err = io.Copy(digest, f); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			full++
			continue
		}
		require.Equal(t, want[:], digest.Sum(nil))
	}
	t.Logf("of %d objects of %d MiB that were open at once, %d could not be read", len(open), modelSize>>20, full)
	for _, f := range open {
		require.NoError(t, f.Close())
	}
	c.end(t, pod)
}

// The agent that comes after kill -9 keeps what the dead one's pods have cached, and
// throws away what it can't vouch for.
func TestNextAgentKeepsTheCache(t *testing.T) {
	t.Parallel()
	c := newCached(t)
	digest := c.model(t, "weights", modelSize)
	one := reading("one")
	require.GreaterOrEqual(t, c.reads(t, c.setup(t, one), "weights", digest), int64(modelSize))
	next := c.again(t)
	next.o.Cache = c.cache
	teardownBy(t, next, one.UID)
	two := reading("two")
	require.Zero(t, c.reads(t, c.setup(t, two), "weights", digest))

	// Killed when the helper had ended and its cache was not put away yet.
	_, err := c.fuseMount(two.UID, "data").Remove(t.Context())
	require.NoError(t, err)
	teardownBy(t, next, two.UID)
	require.NoDirExists(t, filepath.Join(c.at, "used", "two"))
}
