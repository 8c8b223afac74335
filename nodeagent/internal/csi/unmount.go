package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/types"
)

// Unmount takes away all that Mount has made for the pod, or begun to. It is
// idempotent. A volume that is staged for nobody any more Run takes care of.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	records, err := m.ofPods(uid)
	failed := make([]error, len(records)+1)
	failed[len(records)] = err
	var all sync.WaitGroup
	for i, r := range records {
		all.Go(func() {
			if err := m.unpublish(ctx, r); err != nil {
				failed[i] = fmt.Errorf("unmount persistentvolume %q: %w", r.Name, err)
			}
		})
	}
	all.Wait()
	if len(records) > 0 {
		poke(m.swept)
		m.tell(records...)
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	// A folder without a record is of an agent that was killed before it wrote one.
	if left, err := filepath.Glob(filepath.Join(m.podDir(uid), "*")); err == nil {
		for _, dir := range left {
			_ = (&record{dir: dir}).forget(filepath.Join(dir, "mount"))
		}
	}
	for dir := m.podDir(uid); dir != m.podsDir(); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// tell says that other volumes are in use, if one of these has to be attached.
func (m *Manager) tell(records ...*record) {
	if slices.ContainsFunc(records, func(r *record) bool { return r.AttachmentID != "" }) {
		poke(m.changed)
	}
}

func (m *Manager) unpublish(ctx context.Context, r *record) error {
	unlock, err := m.locks.lock(ctx, r.key())
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = read(r.dir); err != nil || r == nil {
		return err
	}
	if r.Progress != wanted {
		d, err := m.driver(r.Driver)
		if err != nil {
			return err
		}
		if err := d.call(ctx, "NodeUnpublishVolume", nil, func(ctx context.Context, node csipb.NodeClient) error {
			_, err := node.NodeUnpublishVolume(ctx, &csipb.NodeUnpublishVolumeRequest{VolumeId: r.Handle, TargetPath: r.target()})
			return err
		}); err != nil {
			return err
		}
	}
	return m.forget(r, r.target())
}

// unstage takes away a volume that is staged, unless a pod wants it.
func (m *Manager) unstage(ctx context.Context, r *record) error {
	unlock, err := m.locks.lock(ctx, r.key())
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = read(r.dir); err != nil || r == nil {
		return err
	}
	pods, err := m.ofPods("")
	if err != nil || slices.ContainsFunc(pods, func(p *record) bool { return p.key() == r.key() }) {
		return err
	}
	if r.Progress != wanted {
		d, err := m.driver(r.Driver)
		if err != nil {
			return err
		}
		if err := d.call(ctx, "NodeUnstageVolume", nil, func(ctx context.Context, node csipb.NodeClient) error {
			_, err := node.NodeUnstageVolume(ctx, &csipb.NodeUnstageVolumeRequest{VolumeId: r.Handle, StagingTargetPath: r.staging()})
			return err
		}); err != nil {
			return err
		}
	}
	return m.forget(r, r.staging())
}

// forget removes the record of what has been undone, if it has: what is still mounted
// is data.
func (m *Manager) forget(r *record, mountPoint string) error {
	mounts, err := m.o.Mounter.List()
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, mounted := range mounts {
		if mounted.Path == mountPoint {
			return fmt.Errorf("CSI driver %s says that it has unmounted the volume, but something is still mounted at %s", r.Driver, mountPoint)
		}
	}
	return r.forget(mountPoint)
}
