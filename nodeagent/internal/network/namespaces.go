package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// Namespaces is where containerd mounts the network namespaces of sandboxes, and
// iproute2 those that have a name.
const Namespaces = "/run/netns"

// guardNamespaces makes dir a mount of its own, shared, before there is a sandbox.
// Else the first `ip netns add` after a boot does so, whenever somebody types it
// (create_netns_dir in iproute2's ip/ipnetns.c): it binds the folder over itself with
// all that is mounted in it. From then on the namespaces of pods are mounted twice,
// containerd takes away what lies on top, finds the file busy ("remove netns: unlinkat:
// device or resource busy"), and no pod that runs then can ever be ended.
//
// A folder that is a mount already needs nothing. In one with namespaces it would be us
// who bring that about: it is left as it is.
func guardNamespaces(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as iproute2 makes it: who lists namespaces is no root
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	// iproute2 takes the same lock for the same.
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	own, others, err := mountsIn(dir)
	if err != nil || own != nil || len(others) > 0 {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind over itself", Path: dir, Err: err}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "share the mount", Path: dir, Err: err}
	}
	return nil
}

// Covered are the namespaces in dir that lie below a mount of dir itself: nobody gets at
// them any more, and containerd can't end the pods that they belong to.
func Covered(dir string) ([]string, error) {
	own, others, err := mountsIn(dir)
	if err != nil || own == nil {
		return nil, err
	}
	var covered []string
	for _, m := range others {
		if m.ParentID != own.ID {
			covered = append(covered, filepath.Base(m.MountPoint))
		}
	}
	return covered, nil
}

// mountsIn is the mount of dir, the last if there are several, and those in it.
func mountsIn(dir string) (own *mount.MountInfo, others []mount.MountInfo, err error) {
	// The thread's own view: a test has its mounts in a namespace apart.
	all, err := mount.ParseMountInfo("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, nil, fmt.Errorf("read what is mounted: %w", err)
	}
	for _, m := range all {
		switch {
		case m.MountPoint == dir:
			own = &m
		case strings.HasPrefix(m.MountPoint, dir+"/"):
			others = append(others, m)
		}
	}
	return own, others, nil
}
