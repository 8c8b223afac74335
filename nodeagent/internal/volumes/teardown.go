package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Teardown unmounts and removes all volumes of the pod. It is idempotent and
// finishes what an interrupted one has left. It removes nothing while anything is
// mounted below: what is in a mount may be somebody else's data.
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error {
	return m.teardown(ctx, uid, m.unpublish)
}

// undoneWithin is how long CSI drivers may take for what a pod has when the machine is
// given back.
const undoneWithin = 30 * time.Second

// Abandon is Teardown that does not wait for a CSI driver which is gone, hangs or
// refuses: what that has mounted is taken away when it does, in this life of the agent or
// a later one (csi.Manager.Run).
func (m *Manager) Abandon(ctx context.Context, uid types.UID) error {
	return m.teardown(ctx, uid, func(ctx context.Context, uid types.UID) error {
		limited, cancel := context.WithTimeout(ctx, undoneWithin)
		defer cancel()
		err := m.unpublish(limited, uid)
		if err == nil || ctx.Err() != nil {
			return err
		}
		klog.FromContext(ctx).Error(err, "Volumes of a pod are taken away later", "podUID", uid)
		return m.o.CSI.Abandon(ctx, uid)
	})
}

func (m *Manager) teardown(ctx context.Context, uid types.UID, unpublish func(context.Context, types.UID) error) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	defer m.writing.Delete(uid)
	defer m.lock(uid)()
	m.tokens.forget(uid)
	pod := filepath.Join(m.o.Root, string(uid))
	// subPaths first: they hold on to the volumes, as those do to their helpers.
	for _, remove := range []func() error{
		func() error { return m.removeBelow(ctx, filepath.Join(pod, subPathsDir)) },
		func() error { return m.removeHelpers(ctx, uid) },
		func() error { return m.removeBelow(ctx, filepath.Join(pod, volumesDir)) },
		func() error { return unpublish(ctx, uid) }, // a driver may be gone
	} {
		if err := remove(); err != nil {
			return fmt.Errorf("take away the volumes of pod %q: %w", uid, err)
		}
	}
	if err := os.Remove(pod); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return fmt.Errorf("take away the volumes of pod %q: %w", uid, err)
	}
	return nil
}

// removeHelpers unmounts what has a helper, and ends it. What it has cached is put away
// for the next.
func (m *Manager) removeHelpers(ctx context.Context, uid types.UID) error {
	directory := filepath.Join(m.o.Root, string(uid), helpersDir)
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the pod's mounts: %w", err)
	}
	failed := make([]error, len(entries))
	var all sync.WaitGroup // each may wait for a server that is gone
	for i, e := range entries {
		all.Go(func() {
			well, err := m.fuseMount(uid, e.Name()).Remove(ctx)
			if failed[i] = err; err == nil {
				m.giveCache(ctx, uid, e.Name(), well)
			}
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	m.dropCaches(ctx, uid) // also of helpers that an interrupted call has ended
	return os.Remove(directory)
}

// unpublish has CSI drivers take away what they have mounted.
func (m *Manager) unpublish(ctx context.Context, uid types.UID) error {
	if m.o.CSI == nil {
		return nil
	}
	return m.o.CSI.Unmount(ctx, uid)
}

func (m *Manager) removeBelow(ctx context.Context, directory string) error {
	if _, err := os.Lstat(directory); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	points, err := m.mountsBelow(directory)
	if err != nil {
		return err
	}
	for _, point := range points {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.o.Mounter.Unmount(point); err != nil {
			return fmt.Errorf("unmount %q: %w", point, err)
		}
	}
	if points, err = m.mountsBelow(directory); err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("%q is still mounted", points[0])
	}
	// Nobody may wait for this any more, and the pod have come back under a new manager.
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.RemoveAll(directory); err != nil {
		return fmt.Errorf("remove %q: %w", directory, err)
	}
	return nil
}

// mountsBelow are the mount points at and below directory, the last mounted first.
func (m *Manager) mountsBelow(directory string) ([]string, error) {
	all, err := m.o.Mounter.List()
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var points []string
	for _, mp := range all {
		// The kernel marks a mount point that was removed elsewhere.
		path := strings.TrimSuffix(mp.Path, "\\040(deleted)")
		if path == directory || strings.HasPrefix(path, directory+"/") {
			points = append(points, path)
		}
	}
	slices.Reverse(points)
	return points, nil
}
