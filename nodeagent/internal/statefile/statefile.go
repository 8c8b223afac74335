// Package statefile replaces a file in one step: whoever reads it, also after a crash or
// a loss of power, finds the old content or the new one.
package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unfinished stands in the names of files that are being written, behind that of the
// file which they are to become.
const unfinished = ".new"

// Write replaces the file at path, in a folder that must be there. It is on the disk when
// Write returns, and so is its name: what was written first is not lost before what was
// written after it. The mode is set whatever the umask.
func Write(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+unfinished+"-*") // several may write at once
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %q: %w", path, err)
	}
	return Sync(dir)
}

// Remove removes the file, if it is there, and what a Write that was killed has left of
// it: that may be as secret as the file.
func Remove(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	var errs []error
	for _, entry := range entries {
		if name := entry.Name(); name == filepath.Base(path) || strings.HasPrefix(name, filepath.Base(path)+unfinished) {
			if err := os.Remove(filepath.Join(filepath.Dir(path), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Unfinished reports whether a file of that name is one that Write has not come to the
// end with, or never will.
func Unfinished(name string) bool { return strings.Contains(name, unfinished) }

// Sync has what was made, renamed and removed in the folder outlive a loss of power.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %q: %w", dir, err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %q: %w", dir, err)
	}
	return nil
}
