package check

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Stdin stands for standard input among the paths.
const Stdin = "-"

// extensions are those of the files that are read in a folder, as kubectl reads them.
var extensions = []string{".json", ".yaml", ".yml"}

// Read reads the objects of files, of the files in folders, and of stdin. What
// can't be read is told in errs; the rest is read all the same.
func Read(paths []string, recursive bool, stdin io.Reader) (objects []Object, errs []error) {
	for _, path := range paths {
		files := []string{path}
		if path != Stdin {
			var err error
			if files, err = expand(path, recursive); err != nil {
				errs = append(errs, err)
			}
		}
		for _, file := range files {
			name, text, err := slurp(file, stdin)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			some, faults := objectsOf(name, text)
			objects, errs = append(objects, some...), append(errs, faults...)
		}
	}
	return objects, errs
}

func slurp(file string, stdin io.Reader) (name string, text []byte, err error) {
	if file == Stdin {
		text, err = io.ReadAll(stdin)
		name = "stdin"
	} else {
		text, err = os.ReadFile(file)
		name = file
	}
	if err != nil {
		return name, nil, fmt.Errorf("read %q: %w", name, cause(err))
	}
	return name, text, nil
}

// cause is err without the path that is named anyway.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// expand is path itself or, of a folder, its files in the order of their names.
func expand(path string, recursive bool) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the path %q does not exist", path)
	case err != nil:
		return nil, fmt.Errorf("read %q: %w", path, cause(err))
	case !info.IsDir():
		return []string{path}, nil
	}
	var files []string
	var errs []error
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("read %q: %w", p, cause(err)))
		case d.IsDir():
			if p != path && !recursive {
				return fs.SkipDir
			}
		case slices.Contains(extensions, filepath.Ext(p)):
			files = append(files, p)
		}
		return nil
	})
	return files, errors.Join(append(errs, err)...)
}
