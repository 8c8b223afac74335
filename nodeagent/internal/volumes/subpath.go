package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

func (m *Manager) subPath(uid types.UID, volume, container string, index int) string {
	return filepath.Join(m.o.Root, string(uid), subPathsDir, volume, container, strconv.Itoa(index))
}

// bindSubPath bind-mounts sub, a path inside volume, at target. A missing directory
// is made where make says so. The path is walked inside the volume (os.Root) and
// the open file is what is mounted, so nothing can be exchanged in between.
func (m *Manager) bindSubPath(volume, sub, target string, make bool) error {
	if !filepath.IsLocal(sub) {
		return fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	defer func() { _ = root.Close() }()
	source, err := openSubPath(root, sub, make)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return fmt.Errorf("look at subPath %q: %w", sub, err)
	}

	done, err := m.clearTarget(target, info)
	if err != nil || done {
		return err
	}
	if err := makeTarget(target, info.IsDir()); err != nil {
		return err
	}
	open := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), source.Fd())
	if err := m.o.Mounter.MountSensitiveWithoutSystemdWithMountFlags(open, target, "", []string{"bind"}, nil, []string{"--no-canonicalize"}); err != nil {
		return fmt.Errorf("bind subPath %q: %w", sub, err)
	}
	return nil
}

func openSubPath(root *os.Root, sub string, make bool) (*os.File, error) {
	// Without O_NONBLOCK a pipe in the volume would hold us up for ever.
	source, err := root.OpenFile(sub, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if !make {
			return nil, fmt.Errorf("subPath %q does not exist in the volume", sub)
		}
		mode := fs.FileMode(0o750)
		if info, err := root.Stat("."); err == nil {
			mode = info.Mode().Perm()
		}
		if err := root.MkdirAll(sub, mode); err != nil {
			return nil, fmt.Errorf("make subPath %q: %w", sub, err)
		}
		// The umask must not lock the pod's users out of it.
		if err := root.Chmod(sub, mode); err != nil {
			return nil, fmt.Errorf("make subPath %q: %w", sub, err)
		}
		source, err = root.OpenFile(sub, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open subPath %q: %w", sub, err)
	}
	return source, nil
}

// clearTarget reports whether wanted is mounted at target already; anything else
// that is mounted there is unmounted.
func (m *Manager) clearTarget(target string, wanted fs.FileInfo) (done bool, err error) {
	known, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %q: %w", target, err)
	}
	is, err := m.o.Mounter.IsMountPoint(target)
	if err != nil {
		return false, fmt.Errorf("look for a mount at %q: %w", target, err)
	}
	if !is {
		return false, nil
	}
	if os.SameFile(known, wanted) {
		return true, nil
	}
	if err := m.o.Mounter.Unmount(target); err != nil {
		return false, fmt.Errorf("unmount an older subPath at %q: %w", target, err)
	}
	return false, nil
}

// makeTarget makes what a mount needs below it: a directory or an empty file.
func makeTarget(target string, directory bool) error {
	// Not RemoveAll: were something still mounted here, it would be the user's data.
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear %q: %w", target, err)
	}
	parent := target
	if !directory {
		parent = filepath.Dir(target)
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return fmt.Errorf("make %q: %w", parent, err)
	}
	if directory {
		return nil
	}
	empty, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("make %q: %w", target, err)
	}
	return empty.Close()
}
