// Package fuse keeps FUSE mounts whose helper processes outlive the agent. What is on
// the machine is the truth: mounts and processes are found by their paths, and nothing
// is remembered that kill -9 would lose.
//
// A helper mounts beside the target and is then bound to it. So a target never shows
// half a mount, and a new helper can be put over the dead mount of one that ended:
// whoever has the target bound with propagation sees the new one at once.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

const (
	// readyWithin is how long a helper may take to mount: it asks an unreachable
	// server some times before it gives up.
	readyWithin = 90 * time.Second
	// endWithin is how long one may take to end whose mount is gone. What was closed is
	// uploaded by then: close(2) waits for it. s3fs 1.90 never ends if it finds its
	// server gone.
	endWithin = 10 * time.Second
	// look is how often both are looked at.
	look = 10 * time.Millisecond
	// memory is what a helper's log and its password file may take.
	memory = "size=1m"
)

// Mount is one mount.
type Mount struct {
	// Target is where it is to be seen; its folder must be there.
	Target string
	// Dir is the mount's own folder, mode 0700. Make makes it, Remove removes it.
	Dir string
}

// Command is a helper's. It must stay in the foreground and mount at Beside.
type Command struct {
	Program string
	Args    []string
	// Password is the content of PasswordFile.
	Password []byte
}

// Beside is where the helper mounts.
func (m Mount) Beside() string { return filepath.Join(m.Dir, "mnt") }

// PasswordFile is in memory, mode 0600, and there as long as the mount is.
func (m Mount) PasswordFile() string { return filepath.Join(m.private(), "passwd") }

// Spool is a folder on disk for what the helper has not uploaded yet.
func (m Mount) Spool() string { return filepath.Join(m.Dir, "spool") }

func (m Mount) private() string { return filepath.Join(m.Dir, "private") }
func (m Mount) log() string     { return filepath.Join(m.private(), "log") }

// FailedError says that the helper did not mount.
type FailedError struct {
	// Said is what it wrote. It may hold keys.
	Said string
	// Late: it was still trying.
	Late bool
}

func (e *FailedError) Error() string {
	if e.Late {
		return "the FUSE helper did not mount in time"
	}
	return "the FUSE helper ended without mounting"
}

// Live reports whether the target is mounted and its helper lives. It touches the
// mount itself with no call: one whose helper hangs would not answer.
func (m Mount) Live() (bool, error) {
	target, err := top(m.Target)
	if err != nil || target == nil {
		return false, err
	}
	beside, err := top(m.Beside())
	if err != nil {
		return false, err
	}
	if beside != nil {
		if beside.Major != target.Major || beside.Minor != target.Minor {
			return false, nil // a helper that has not come to the target
		}
		if err := unmount(m.Beside()); err != nil {
			return false, err
		}
	}
	helpers, err := m.helpers()
	return len(helpers) > 0, err
}

// Make starts the helper and mounts it at the target, over a dead mount if there is
// one. The error is a *FailedError where the helper could not; then it is gone, with
// all that it was given.
func (m Mount) Make(ctx context.Context, c Command) error {
	if err := m.Clear(ctx); err != nil {
		return err
	}
	err := m.make(ctx, c)
	if err != nil {
		// Not by ctx: it may be done, and the password must not stay.
		err = errors.Join(err, m.Clear(context.WithoutCancel(ctx)))
	}
	return err
}

func (m Mount) make(ctx context.Context, c Command) error {
	for _, directory := range []string{m.Beside(), m.private(), m.Spool()} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return fmt.Errorf("make the FUSE helper's folder: %w", err)
		}
	}
	if err := unix.Mount("tmpfs", m.private(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, memory+",mode=0700"); err != nil {
		return fmt.Errorf("mount the memory for the FUSE helper's password: %w", err)
	}
	if err := os.WriteFile(m.PasswordFile(), c.Password, 0o600); err != nil {
		return fmt.Errorf("write the FUSE helper's password: %w", err)
	}
	ended, err := m.start(c)
	if err != nil {
		return err
	}
	if err := m.ready(ctx, ended); err != nil {
		return err
	}
	if _, err := os.Lstat(m.Target); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(m.Target, 0o750); err != nil {
			return fmt.Errorf("make the mount point: %w", err)
		}
	}
	// Shared from its first moment on, for those who have it bound with propagation.
	err = unix.Mount("", m.Beside(), "", unix.MS_SHARED, "")
	if errors.Is(err, unix.EINVAL) { // no mount any more: the helper was refused and is ending
		select {
		case <-ended:
			return &FailedError{Said: m.said()}
		case <-ctx.Done():
		}
	}
	if err != nil {
		return fmt.Errorf("share the FUSE mount: %w", err)
	}
	if err := unix.Mount(m.Beside(), m.Target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the FUSE mount to its place: %w", err)
	}
	return unmount(m.Beside())
}

// ready waits until the mount beside the target answers.
func (m Mount) ready(ctx context.Context, ended <-chan struct{}) error {
	answered := make(chan error, 1)
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, errLate)
	defer cancel()
	for mounted := false; ; {
		select {
		case <-ended:
			return &FailedError{Said: m.said()}
		case err := <-answered:
			if err == nil {
				return nil
			}
			// A moment before it ends itself, with more to say.
			select {
			case <-ended:
			case <-ctx.Done():
			}
			return &FailedError{Said: m.said()}
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLate) {
				return &FailedError{Said: m.said(), Late: true}
			}
			return ctx.Err()
		case <-time.After(look):
		}
		if mounted {
			continue
		}
		beside, err := top(m.Beside())
		if err != nil {
			return err
		}
		if mounted = beside != nil; mounted {
			// Answered when the helper has begun to serve. Clear, which kills it, ends this
			// call where it does not.
			go func() { answered <- serves(m.Beside()) }()
		}
	}
}

var errLate = errors.New("late")

// serves asks the mount until it has answered for good. A helper that its server has
// refused tells so when it has begun to serve, and libfuse then still answers as many
// calls as it has threads that wait for one, which is one. This call is never answered
// by the kernel itself.
func serves(path string) error {
	const calls = 4
	for range calls {
		if err := unix.Statfs(path, &unix.Statfs_t{}); err != nil {
			return err
		}
	}
	return nil
}

// said is what the helper has written.
func (m Mount) said() string {
	text, err := os.ReadFile(m.log())
	if err != nil {
		return ""
	}
	return string(text)
}

// Clear ends every helper, and takes away what it was given; the target, which may be
// a dead mount that somebody still has, stays. Make does so first.
func (m Mount) Clear(ctx context.Context) error {
	if _, err := m.end(ctx, 0); err != nil {
		return err
	}
	return m.removeDir()
}

// Remove unmounts the target, ends the helper and removes its folder. It is idempotent,
// and fails with EBUSY as long as somebody uses the mount. well: the helper served to
// the last and ended by itself, so that what it has written is whole.
func (m Mount) Remove(ctx context.Context) (well bool, err error) {
	served, err := m.Live()
	if err != nil {
		return false, err
	}
	for _, path := range []string{m.Beside(), m.Target} {
		if err := unmountAll(path); err != nil {
			return false, err
		}
	}
	killed, err := m.end(ctx, endWithin)
	if err != nil {
		return false, err
	}
	return served && !killed, m.removeDir()
}

func (m Mount) removeDir() error {
	// When no helper lives: one may have mounted at its last moment.
	if err := unmountAll(m.Beside()); err != nil {
		return err
	}
	// Lazily: a process that is ending holds on to its log a moment longer than to its
	// name, and memory that nobody can reach is free when it lets go.
	for {
		private, err := top(m.private())
		if err != nil {
			return err
		}
		if private == nil {
			break
		}
		if err := unix.Unmount(m.private(), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the FUSE helper's password: %w", err)
		}
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("remove the FUSE helper's folder: %w", err)
	}
	return nil
}

// top is what is mounted at path, nil if nothing is.
func top(path string) (*mount.MountInfo, error) {
	all, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	for _, mounted := range slices.Backward(all) {
		if strings.TrimSuffix(mounted.MountPoint, "//deleted") == path {
			return &mounted, nil
		}
	}
	return nil, nil // that nothing is mounted is no error
}

func unmountAll(path string) error {
	for {
		mounted, err := top(path)
		if err != nil || mounted == nil {
			return err
		}
		if err := unmount(path); err != nil {
			return err
		}
	}
}

// unmount takes the topmost mount away. Not by umount(8), which would look at a mount
// that may not answer.
func unmount(path string) error {
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("unmount %q: %w", path, err)
	}
	return nil
}
