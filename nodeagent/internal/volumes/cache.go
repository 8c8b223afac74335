package volumes

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/ossfs"
)

// Cache is a disk of limited size for what FUSE helpers have read.
type Cache interface {
	// Salt is what digests are made with, nil if nothing can be cached.
	Salt() ([]byte, error)
	// EnsureFree is how much of it a helper leaves free, in bytes.
	EnsureFree() int64
	// Take gives a volume a folder: what the last mount with the digest has left, or an
	// empty one. Without a digest it serves this mount alone. It is empty, as a name, if
	// less than EnsureFree and start is free, in bytes.
	Take(uid types.UID, volume, digest string, start int64) (string, error)
	// Give takes it back from a volume that has no helper any more. well: what is in it
	// is whole.
	Give(uid types.UID, volume string, well bool) error
	// Drop removes all that the pod's volumes still have.
	Drop(uid types.UID) error
}

// takeCache is a folder for what the volume's helper reads, empty if nobody asks for
// one, or the machine has none or no room: the volume is the same without. For the same
// reason what goes wrong with the cache keeps no pod from starting or ending.
func (m *Manager) takeCache(ctx context.Context, uid types.UID, volume string, bucket ossfs.Bucket, helper ossfs.Helper, pod ossfs.Pod) string {
	if m.o.Cache == nil || !bucket.Cached() {
		return ""
	}
	salt, err := m.o.Cache.Salt()
	if err == nil && salt == nil {
		return ""
	}
	path, digest := "", ""
	if bucket.Kept(pod) {
		digest = bucket.Digest(helper, salt)
	}
	if err == nil {
		path, err = m.o.Cache.Take(uid, volume, digest, bucket.StartRoom())
	}
	switch {
	case err != nil:
		klog.FromContext(ctx).Error(err, "What is read from a bucket is not cached", "podUID", uid, "volume", volume)
		return ""
	case path == "":
		klog.FromContext(ctx).Info("What is read from a bucket is not cached: others need all of the cache", "podUID", uid, "volume", volume)
	}
	return path
}

// giveCache puts away what a helper that has ended has cached, if it ended well.
func (m *Manager) giveCache(ctx context.Context, uid types.UID, volume string, well bool) {
	if m.o.Cache == nil {
		return
	}
	if err := m.o.Cache.Give(uid, volume, well); err != nil {
		klog.FromContext(ctx).Error(err, "The cache of a bucket is not put away", "podUID", uid, "volume", volume)
	}
}

func (m *Manager) dropCaches(ctx context.Context, uid types.UID) {
	if m.o.Cache == nil {
		return
	}
	if err := m.o.Cache.Drop(uid); err != nil {
		klog.FromContext(ctx).Error(err, "The cache of a pod's buckets is not removed", "podUID", uid)
	}
}
