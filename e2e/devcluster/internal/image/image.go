// Package image makes container images from files of this machine: no
// registry, no build tool, and the same files give the same digest.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is one entry of an image.
type File struct {
	Target  string // absolute path in the image
	Source  string // file on this machine; empty for a folder, a link or Content
	Content string
	Link    string // a symbolic link to this
	Mode    fs.FileMode
}

// Spec is what an image holds and how it starts.
type Spec struct {
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkDir    string
}

// special are the bits above a mode's nine, as chmod and tar write them.
var special = map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

// ParseAdd reads SRC:DST[:MODE]; a folder brings everything in it.
func ParseAdd(text string) ([]File, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") {
		return nil, fmt.Errorf("--add %s: want SRC:DST or SRC:DST:MODE, DST an absolute path in the image, MODE octal such as 0755", text)
	}
	source, target := parts[0], path.Clean(parts[1])
	info, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("--add %s: %w", text, err)
	}
	if len(parts) == 3 {
		mode, err := strconv.ParseUint(parts[2], 8, 12)
		if err != nil {
			return nil, fmt.Errorf("--add %s: %q is no octal mode such as 0755", text, parts[2])
		}
		if info.IsDir() {
			return nil, fmt.Errorf("--add %s: a folder keeps its files' modes; leave :%s away", text, parts[2])
		}
		file := File{Source: source, Target: target, Mode: fs.FileMode(mode).Perm()}
		for bit, special := range special {
			if mode&bit != 0 {
				file.Mode |= special
			}
		}
		return []File{file}, nil
	}
	if !info.IsDir() {
		return []File{{Source: source, Target: target, Mode: info.Mode().Perm()}}, nil
	}
	var files []File
	err = filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		file := File{Target: path.Join(target, filepath.ToSlash(inside))}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		file.Mode = info.Mode().Perm()
		switch {
		case entry.IsDir():
			file.Mode |= fs.ModeDir
		case entry.Type()&fs.ModeSymlink != 0:
			file.Link, err = os.Readlink(name)
		case entry.Type().IsRegular():
			file.Source = name
		default:
			return nil // sockets and devices make no sense in an image
		}
		files = append(files, file)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("--add %s: %w", text, err)
	}
	return files, nil
}

// Build makes the image.
func Build(spec Spec) (v1.Image, error) {
	layer, err := writeLayer(spec.Files)
	if err != nil {
		return nil, err
	}
	made, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching,
	)
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, made)
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, User: spec.User, WorkingDir: spec.WorkDir,
		Env: spec.Env,
	}
	if len(spec.Env) == 0 || !hasPath(spec.Env) {
		config.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, spec.Env...)
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("making the image: %w", err)
	}
	return img, nil
}

func hasPath(env []string) bool {
	for _, entry := range env {
		if strings.HasPrefix(entry, "PATH=") {
			return true
		}
	}
	return false
}

// writeLayer packs files with their parents, sorted and without times. Of two
// files with the same target the later one wins.
func writeLayer(files []File) ([]byte, error) {
	entries := map[string]File{}
	for _, file := range files {
		for parent := path.Dir(file.Target); parent != "/" && parent != "."; parent = path.Dir(parent) {
			if _, ok := entries[parent]; !ok {
				entries[parent] = File{Target: parent, Mode: fs.ModeDir | 0o755}
			}
		}
		if file.Target != "/" {
			entries[file.Target] = file
		}
	}
	targets := make([]string, 0, len(entries))
	for target := range entries {
		targets = append(targets, target)
	}
	sort.Strings(targets)
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, target := range targets {
		if err := writeEntry(archive, entries[target]); err != nil {
			return nil, fmt.Errorf("packing %s: %w", target, err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("packing the image: %w", err)
	}
	return out.Bytes(), nil
}

func writeEntry(archive *tar.Writer, file File) error {
	header := &tar.Header{Name: strings.TrimPrefix(file.Target, "/"), Mode: int64(file.Mode.Perm()), Format: tar.FormatPAX}
	for bit, special := range special {
		if file.Mode&special != 0 {
			header.Mode |= int64(bit)
		}
	}
	content := []byte(file.Content)
	switch {
	case file.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
	case file.Link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, file.Link, 0o777
	default:
		header.Typeflag = tar.TypeReg
		if file.Source != "" {
			var err error
			if content, err = os.ReadFile(file.Source); err != nil {
				return err
			}
		}
		header.Size = int64(len(content))
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := archive.Write(content)
	return err
}
