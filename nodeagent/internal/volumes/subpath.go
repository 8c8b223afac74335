package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

func (m *Manager) subPath(uid types.UID, volume, container string, index int) string {
	return filepath.Join(m.o.Root, string(uid), subPathsDir, volume, container, strconv.Itoa(index))
}

// bindSubPath bind-mounts sub, a path inside volume, at target. A missing directory
// is made where make says so. The path is walked inside the volume (os.Root) and what
// was found is what is mounted, so nothing can be exchanged in between.
func (m *Manager) bindSubPath(volume, sub, target string, make bool) error {
	if !filepath.IsLocal(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return fmt.Errorf("subPath %q leads out of the volume: it must be relative and without \"..\"", sub)
	}
	root, err := os.OpenRoot(volume)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	defer func() { _ = root.Close() }()
	source, err := openSubPath(root, path.Clean(sub), make)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
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
	if err := m.o.Mounter.MountSensitiveWithoutSystemdWithMountFlags(handle(source), target, "", []string{"bind"}, nil, []string{"--no-canonicalize"}); err != nil {
		return fmt.Errorf("bind subPath %q: %w", sub, err)
	}
	return nil
}

// handle is a path of what f holds, whatever it is called meanwhile.
func handle(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

func openSubPath(root *os.Root, sub string, make bool) (*os.File, error) {
	source, err := find(root, sub)
	if errors.Is(err, fs.ErrNotExist) {
		if !make {
			return nil, fmt.Errorf("subPath %q does not exist in the volume", sub)
		}
		if err := makeDirectories(root, sub); err != nil {
			return nil, fmt.Errorf("make subPath %q: %w", sub, err)
		}
		source, err = find(root, sub)
	}
	if err != nil {
		return nil, fmt.Errorf("open subPath %q: %w", sub, err)
	}
	return source, nil
}

// find gets hold of what sub is, without opening it: a container may have put a pipe
// there, which would hold us up for ever, or a device that does something when it is
// opened. A link is followed inside root alone, hop by hop as os.Root does.
func find(root *os.Root, sub string) (*os.File, error) {
	const mostLinks = 40 // the kernel's
	for range mostLinks {
		found, err := root.OpenFile(sub, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		info, err := found.Stat()
		if err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return found, nil
		}
		var target string
		if err == nil {
			target, err = readLink(found)
		}
		_ = found.Close()
		if err != nil {
			return nil, err
		}
		if path.IsAbs(target) {
			return nil, errors.New("it is a link to an absolute path")
		}
		// Not cleaned: what stands before a ".." may itself be a link.
		sub = sub[:strings.LastIndexByte(strings.TrimRight(sub, "/"), '/')+1] + target
	}
	return nil, unix.ELOOP
}

// readLink is where a link leads of which we have got hold.
func readLink(link *os.File) (string, error) {
	target := [unix.PathMax]byte{}
	n, err := unix.Readlinkat(int(link.Fd()), "", target[:])
	return string(target[:max(n, 0)]), err
}

// makeDirectories makes what is missing of sub, with the mode of the volume, as the
// kubelet does: who may write there may write here, and files stay the fsGroup's.
func makeDirectories(root *os.Root, sub string) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky)
	made := ""
	for part := range strings.SplitSeq(sub, "/") {
		made = path.Join(made, part)
		if err := root.Mkdir(made, mode.Perm()); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		directory, err := find(root, made)
		if err != nil {
			return err
		}
		// Whatever the umask, and by what was found: the name may be another's by now.
		err = os.Chmod(handle(directory), mode)
		_ = directory.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// clearTarget reports whether wanted is mounted at target already; anything else
// that is mounted there is unmounted.
func (m *Manager) clearTarget(target string, wanted fs.FileInfo) (done bool, err error) {
	known, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, unix.ENOTCONN) { // of a volume whose helper has ended
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
			return false, fmt.Errorf("unmount a dead subPath at %q: %w", target, err)
		}
		return m.clearTarget(target, wanted)
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
