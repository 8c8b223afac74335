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
			if r.damaged != nil {
				failed[i] = m.forgetDamaged(r)
				return
			}
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

// Abandon has Run take away what the pod has, as soon as its driver does so: in this
// life of the agent or a later one. Until then the volume counts as in use.
func (m *Manager) Abandon(ctx context.Context, uid types.UID) error {
	records, err := m.ofPods(uid)
	failed := []error{err}
	for _, r := range records {
		if r.damaged == nil {
			failed = append(failed, m.abandon(ctx, r))
		}
	}
	poke(m.swept)
	return errors.Join(failed...)
}

func (m *Manager) abandon(ctx context.Context, r *record) error {
	return m.withRecord(ctx, r, func(r *record) error {
		r.Abandoned = yes
		return r.note(r.Progress, r.Boot)
	})
}

// withRecord does something to a volume while no call is made for it, with its record as it is
// then; nothing if that is gone meanwhile.
func (m *Manager) withRecord(ctx context.Context, r *record, do func(r *record) error) error {
	unlock, err := m.locks.lock(ctx, r.key())
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = read(r.dir); err != nil || r == nil {
		return err
	}
	return do(r)
}

// forgetDamaged removes a record that can't be read, once nothing is mounted beside it.
func (m *Manager) forgetDamaged(r *record) error {
	if _, err := m.readOver(r.dir, r.target()); err != nil {
		return err
	}
	return r.forget(r.target())
}

func (m *Manager) unpublish(ctx context.Context, r *record) error {
	return m.withRecord(ctx, r, func(r *record) error { return m.undoPublish(ctx, r) })
}

// unpublishAbandoned is unpublish, unless the pod has come back: one that was ended while
// neither hub nor target answered may run again.
func (m *Manager) unpublishAbandoned(ctx context.Context, r *record) error {
	return m.withRecord(ctx, r, func(r *record) error {
		if r.Abandoned != yes {
			return nil
		}
		return m.undoPublish(ctx, r)
	})
}

// undoPublish is unpublish with the volume's lock held.
func (m *Manager) undoPublish(ctx context.Context, r *record) error {
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
	return m.withRecord(ctx, r, func(r *record) error {
		used, err := m.used()
		if err != nil || used[r.key()] {
			return err
		}
		return m.undoStage(ctx, r)
	})
}

// used are the volumes that pods have, by key. It is an error where one is mounted of
// which nobody knows what it is: any may be in use then.
func (m *Manager) used() (map[string]bool, error) {
	pods, err := m.ofPods("")
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, r := range pods {
		if r.damaged != nil {
			if _, err := m.readOver(r.dir, r.target()); err != nil {
				return nil, err
			}
			continue
		}
		used[r.key()] = true
	}
	return used, nil
}

// undoStage is unstage where it is known that no pod has the volume, whose lock is held.
func (m *Manager) undoStage(ctx context.Context, r *record) error {
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
	mounted, err := m.mounted(mountPoint)
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("CSI driver %s says that it has unmounted the volume, but something is still mounted at %s", r.Driver, mountPoint)
	}
	return r.forget(mountPoint)
}
