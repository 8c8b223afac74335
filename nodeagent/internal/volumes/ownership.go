package volumes

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
