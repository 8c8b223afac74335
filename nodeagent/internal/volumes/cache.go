package volumes

import (
	"k8s.io/apimachinery/pkg/types"

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
// one, or the machine has none or no room: the volume is the same without.
func (m *Manager) takeCache(uid types.UID, volume string, bucket ossfs.Bucket, helper ossfs.Helper, pod ossfs.Pod) (string, error) {
	if m.o.Cache == nil || !bucket.Cached() {
		return "", nil
	}
	salt, err := m.o.Cache.Salt()
	if err != nil || salt == nil {
		return "", err
	}
	digest := ""
	if bucket.Kept(pod) {
		digest = bucket.Digest(helper, salt)
	}
	return m.o.Cache.Take(uid, volume, digest, bucket.StartRoom())
}

func (m *Manager) giveCache(uid types.UID, volume string, well bool) error {
	if m.o.Cache == nil {
		return nil
	}
	return m.o.Cache.Give(uid, volume, well)
}

func (m *Manager) dropCaches(uid types.UID) error {
	if m.o.Cache == nil {
		return nil
	}
	return m.o.Cache.Drop(uid)
}
