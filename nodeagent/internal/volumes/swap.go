package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/utils/ptr"
)

// The kubelet's layout, which config reloaders know: the files lie in a directory
// of their own, ..data points at it, and what users see points into ..data. A
// rename of ..data changes all files at once.
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	versionName = "..version-"
)

// version begins the name of a directory of files that was written in this boot. A
// crash of the agent leaves the old files or the new ones, since only a rename shows
// them; after one of the machine what was renamed may have no content yet. Waiting for
// the disk at each write would be the dearer way out.
func (m *Manager) version() string {
	boot := strings.ReplaceAll(m.o.Boot, "-", "")
	return versionName + boot[:min(len(boot), 12)] + "-"
}

// written reports whether swap has finished for the volume at least once since the
// machine was booted.
func (m *Manager) written(volume string) bool {
	current, err := os.Readlink(filepath.Join(volume, dataLink))
	return err == nil && strings.HasPrefix(current, m.version())
}

// swap makes files the content of the volume, in one step for those who read it.
// Where nothing has changed it leaves the files alone and only mends what a crash
// has left undone.
func (m *Manager) swap(volume string, files map[string]file, group *int64) error {
	files, err := clean(files)
	if err != nil {
		return err
	}
	current, err := os.Readlink(filepath.Join(volume, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", dataLink, err)
	}
	if !strings.HasPrefix(current, m.version()) || !same(filepath.Join(volume, current), files, group) {
		if current, err = publish(volume, m.version(), files, group); err != nil {
			return err
		}
	}
	return tidy(volume, current, files)
}

// clean refuses paths that leave the volume or hide in its layout.
func clean(files map[string]file) (map[string]file, error) {
	cleaned := map[string]file{}
	for name, f := range files {
		if !filepath.IsLocal(name) || path.Clean(name) == "." || strings.HasPrefix(name, "..") {
			return nil, fmt.Errorf("path %q is not one inside a volume", name)
		}
		cleaned[path.Clean(name)] = f
	}
	return cleaned, nil
}

// same reports whether directory holds exactly files.
func same(directory string, files map[string]file, group *int64) bool {
	found := 0
	err := filepath.WalkDir(directory, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(directory, p)
		if err != nil {
			return err
		}
		want, ok := files[rel]
		if !ok {
			return fs.ErrExist
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		mode := want.mode
		if group != nil {
			mode |= readable
		}
		if !bytes.Equal(raw, want.data) || info.Mode().Perm() != mode || !belongsTo(info, want.owner) {
			return fs.ErrInvalid
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func belongsTo(info fs.FileInfo, owner *int64) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Uid) == ptr.Deref(owner, 0)
}

// publish writes files into a new directory and points ..data at it.
func publish(volume, prefix string, files map[string]file, group *int64) (version string, err error) {
	directory, err := os.MkdirTemp(volume, prefix)
	if err != nil {
		return "", fmt.Errorf("make the directory of the files: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(directory)
		}
	}()
	if err := os.Chmod(directory, 0o755); err != nil { // any user of the pod may read
		return "", fmt.Errorf("open the directory of the files: %w", err)
	}
	for name, f := range files {
		if err := write(filepath.Join(directory, name), f); err != nil {
			return "", err
		}
	}
	if err := own(directory, group, readOnly); err != nil {
		return "", err
	}
	version = filepath.Base(directory)
	temporary := filepath.Join(volume, newDataLink)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove a left-over %s: %w", newDataLink, err)
	}
	if err := os.Symlink(version, temporary); err != nil {
		return "", fmt.Errorf("point at the new files: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(volume, dataLink)); err != nil {
		return "", fmt.Errorf("swap in the new files: %w", err)
	}
	return version, nil
}

func write(name string, f file) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("make the directory of a file: %w", err)
	}
	if err := os.WriteFile(name, f.data, f.mode); err != nil {
		return fmt.Errorf("write a file: %w", err)
	}
	// The umask must not take rights away that the pod asked for.
	if err := os.Chmod(name, f.mode); err != nil {
		return fmt.Errorf("set the mode of a file: %w", err)
	}
	if f.owner != nil {
		if err := os.Chown(name, int(*f.owner), -1); err != nil {
			return fmt.Errorf("give a file to its user: %w", err)
		}
	}
	return nil
}

// tidy makes the links that users see, and removes those whose files are gone and
// the directories of older versions.
func tidy(volume, current string, files map[string]file) error {
	visible := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		visible[first] = true
	}
	for name := range visible {
		link, target := filepath.Join(volume, name), filepath.Join(dataLink, name)
		if known, err := os.Readlink(link); err == nil && known == target {
			continue
		}
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("show %q: %w", name, err)
		}
	}
	entries, err := os.ReadDir(volume)
	if err != nil {
		return fmt.Errorf("list the volume: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		old := strings.HasPrefix(name, versionName) && name != current
		gone := e.Type()&fs.ModeSymlink != 0 && name != dataLink && !visible[name]
		if !old && !gone {
			continue
		}
		if err := os.RemoveAll(filepath.Join(volume, name)); err != nil {
			return fmt.Errorf("remove old files: %w", err)
		}
	}
	return nil
}
