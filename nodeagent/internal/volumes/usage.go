package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// Limited reports whether a volume of the pod on disk has a limit that nothing but
// Excess enforces: one in memory is no larger than its tmpfs.
func Limited(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if diskLimit(&pod.Spec.Volumes[i]) > 0 {
			return true
		}
	}
	return false
}

// diskLimit is the sizeLimit of an emptyDir on disk in bytes, 0 if it has none.
func diskLimit(v *corev1.Volume) int64 {
	if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault || v.EmptyDir.SizeLimit == nil {
		return 0
	}
	return max(v.EmptyDir.SizeLimit.Value(), 0)
}

// Excess says, in the kubelet's words, which emptyDir on disk holds more than its
// sizeLimit; nothing if none does. It reads every directory of the limited volumes.
func (m *Manager) Excess(ctx context.Context, pod *corev1.Pod) (string, error) {
	if err := checkUID(pod.UID); err != nil {
		return "", err
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		limit := diskLimit(v)
		if limit == 0 {
			continue
		}
		over, err := holdsMore(ctx, m.volume(pod.UID, v.Name), limit)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("measure volume %q: %w", v.Name, err)
		}
		if over {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String()), nil
		}
	}
	return "", nil
}

// errEnough ends a walk that has seen enough.
var errEnough = errors.New("more than the limit")

// holdsMore reports whether the files below path occupy more than limit bytes of disk,
// each inode counted once. The walk cannot be led out of the volume by links that a
// container makes meanwhile.
func holdsMore(ctx context.Context, path string, limit int64) (bool, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }()
	type inode struct{ device, number uint64 }
	linked := map[inode]bool{}
	used := int64(0)
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				stat, ok := info.Sys().(*syscall.Stat_t)
				if !ok {
					return nil
				}
				if at := (inode{stat.Dev, stat.Ino}); stat.Nlink > 1 && !d.IsDir() {
					if linked[at] {
						return nil
					}
					linked[at] = true
				}
				const block = 512 // of st_blocks, whatever the file system's are
				if used += stat.Blocks * block; used > limit {
					return errEnough
				}
				return nil
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}
