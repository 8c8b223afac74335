package logrotation

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	compressed = ".gz"
	unfinished = ".tmp"
)

// Files are all files of a container's log, the current one at path included, the
// oldest first; half-written ones too.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var files []string
	current := false
	for _, e := range entries { // sorted, and so by age
		switch file := filepath.Join(filepath.Dir(path), e.Name()); {
		case file == path:
			current = true
		case strings.HasPrefix(file, path+"."):
			files = append(files, file)
		}
	}
	if current {
		files = append(files, path)
	}
	return files, nil
}

// Remove removes all files of a container's log.
func Remove(path string) error {
	files, err := Files(path)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove log: %w", err)
		}
	}
	return nil
}

// tidy removes what an interrupted pass has left and all but the newest keep of the
// rotated logs, and compresses those.
func tidy(path string, keep int) error {
	files, err := Files(path)
	if err != nil {
		return err
	}
	var rotated []string
	for _, file := range files {
		switch {
		case file == path:
		case strings.HasSuffix(file, unfinished), slices.Contains(files, file+compressed):
			if err := os.Remove(file); err != nil {
				return fmt.Errorf("remove half a log: %w", err)
			}
		default:
			rotated = append(rotated, file)
		}
	}
	for i, file := range rotated {
		if i < len(rotated)-keep {
			if err := os.Remove(file); err != nil {
				return fmt.Errorf("remove the oldest log: %w", err)
			}
			continue
		}
		if !strings.HasSuffix(file, compressed) {
			if err := compress(file); err != nil {
				return fmt.Errorf("compress log %q: %w", file, err)
			}
		}
	}
	return nil
}

// compress replaces the file by FILE.gz; a crash leaves one of the two.
func compress(file string) error {
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	part := file + unfinished
	to, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	archive := gzip.NewWriter(to)
	_, err = io.Copy(archive, from)
	if err := errors.Join(err, archive.Close(), to.Close()); err != nil {
		_ = os.Remove(part)
		return err
	}
	if err := os.Rename(part, file+compressed); err != nil {
		return err
	}
	return os.Remove(file)
}
