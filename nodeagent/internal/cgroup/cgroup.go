// Package cgroup limits and takes away the cgroups of pods, and reads what is used in
// one. A container's own is the runtime's matter, but the one around it, the pod's, is
// made by the runtime without limits and removed by nobody.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mount is where the kernel's cgroups are, of either version.
const Mount = "/sys/fs/cgroup"

// Remove removes the cgroup at path below mount, and what is below it, in every
// hierarchy. It is idempotent and removes nothing that holds a process: that is an
// error, and worth another try when the process has ended. An empty path is none.
func Remove(mount, path string) error {
	if path = filepath.Clean("/" + path); path == "/" {
		return nil
	}
	hierarchies, err := hierarchies(mount)
	if err != nil {
		return err
	}
	var failed []error
	for _, hierarchy := range hierarchies {
		if err := remove(filepath.Join(hierarchy, path)); err != nil {
			failed = append(failed, fmt.Errorf("remove cgroup %q: %w", path, err))
		}
	}
	return errors.Join(failed...)
}

// hierarchies are mount itself (version 2), or one directory a controller.
func hierarchies(mount string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		return []string{mount}, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, filepath.Join(mount, e.Name()))
		}
	}
	return all, nil
}

func remove(directory string) error {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(directory, e.Name())); err != nil {
				return err
			}
		}
	}
	// Not os.Remove: the files of a cgroup can't be unlinked, and need not be.
	if err := unix.Rmdir(directory); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", directory, err)
	}
	return nil
}
