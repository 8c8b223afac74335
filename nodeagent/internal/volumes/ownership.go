package volumes

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// What fsGroup adds to the mode of files (pkg/volume/volume_linux.go).
const (
	writable fs.FileMode = 0o660
	readable fs.FileMode = 0o440
	readOnly             = readable
)

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// ownMounted gives what somebody else has mounted to the pod's fsGroup, unless the pod
// is content with a root that looks as if it had been given already: that it can take
// long is what fsGroupChangePolicy is for (pkg/volume/volume_linux.go).
func ownMounted(path string, pod *corev1.Pod) error {
	policy := corev1.FSGroupChangeAlways
	if s := pod.Spec.SecurityContext; s != nil && s.FSGroupChangePolicy != nil {
		policy = *s.FSGroupChangePolicy
	}
	group := fsGroup(pod)
	if policy == corev1.FSGroupChangeOnRootMismatch && group != nil && owned(path, *group) {
		return nil
	}
	return own(path, group, writable)
}

// owned reports whether own has nothing to do at path itself.
func owned(path string, group int64) bool {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	const want = writable | 0o110
	return ok && int64(stat.Gid) == group && info.Mode().Perm()&want == want && info.Mode()&fs.ModeSetgid != 0
}

// own gives everything below path to the group, with the rights in mask, and lets
// what is made in its directories later belong to it too. Symbolic links are not
// followed.
func own(path string, group *int64, mask fs.FileMode) error {
	if group == nil {
		return nil
	}
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(p, -1, int(*group)); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | mask
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		return os.Chmod(p, mode)
	})
	if err != nil {
		return fmt.Errorf("give the volume to group %d: %w", *group, err)
	}
	return nil
}
