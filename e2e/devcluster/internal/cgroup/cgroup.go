// Package cgroup keeps every process of a cluster in one cgroup per hierarchy.
// Children inherit it, so what belongs to the cluster can be found and ended
// by that name alone, whatever has happened to the records.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Mount   string // where it is mounted
	Options string // what to mount to get the same one; empty for version 2
	V2      bool
}

// Hierarchies reads the mounts of this process.
func Hierarchies() ([]Hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	list := parseMounts(string(data))
	if len(list) == 0 {
		return nil, errors.New("no cgroup file system is mounted at /sys/fs/cgroup: mount one, as systemd or the distribution's cgroupfs-mount does")
	}
	return list, nil
}

func parseMounts(mountinfo string) []Hierarchy {
	var list []Hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 || seen[left[4]] {
			continue
		}
		switch right[0] {
		case "cgroup":
			list = append(list, Hierarchy{Mount: left[4], Options: subsystems(right[2])})
		case "cgroup2":
			list = append(list, Hierarchy{Mount: left[4], V2: true})
		default:
			continue
		}
		seen[left[4]] = true
	}
	return list
}

// subsystems drops from super options what is not a controller or a name.
func subsystems(options string) string {
	var kept []string
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode":
		default:
			if strings.HasPrefix(option, "release_agent=") {
				continue
			}
			if strings.HasPrefix(option, "name=") {
				kept = append(kept, "none")
			}
			kept = append(kept, option)
		}
	}
	return strings.Join(kept, ",")
}

// Unified tells whether version 2 is the only one mounted.
func Unified(list []Hierarchy) bool {
	return len(list) == 1 && list[0].V2
}

// Create makes the cgroup name (slashes allowed) in every hierarchy.
func Create(list []Hierarchy, name string) error {
	unified := Unified(list)
	for _, h := range list {
		path := h.Mount
		for part := range strings.SplitSeq(name, "/") {
			parent := path
			path = filepath.Join(path, part)
			if unified {
				Delegate(parent)
			}
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making a cgroup: %w: this needs root and a writable cgroup file system", err)
			}
			inheritCPUSet(parent, path)
		}
	}
	return nil
}

// Delegate lets a version 2 cgroup's children use every controller it has.
// One that cannot be handed on is left out, as every runtime does.
func Delegate(path string) {
	controllers, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		_ = os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

// inheritCPUSet fills what a version 1 cpuset needs before it takes a process.
func inheritCPUSet(parent, path string) {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(path, file))
		if err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		if value, err := os.ReadFile(filepath.Join(parent, file)); err == nil && strings.TrimSpace(string(value)) != "" {
			_ = os.WriteFile(filepath.Join(path, file), value, 0o644)
		}
	}
}

// Join moves the calling process into the cgroup name.
func Join(list []Hierarchy, name string) error {
	for _, h := range list {
		file := filepath.Join(h.Mount, name, "cgroup.procs")
		if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("joining the cgroup %s: %w: this needs root", name, err)
		}
	}
	return nil
}

// Place remembers which cgroup this process is in, to go back to later.
func Place(list []Hierarchy) (back func(), err error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("reading this process's cgroup: %w", err)
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths[parts[1]] = parts[2]
		}
	}
	return func() {
		for _, h := range list {
			key := strings.TrimPrefix(h.Options, "none,")
			_ = os.WriteFile(filepath.Join(h.Mount, paths[key], "cgroup.procs"), []byte("0"), 0o644)
		}
	}, nil
}

// Pids lists the processes in the cgroup name and below it.
func Pids(list []Hierarchy, name string) []int {
	seen := map[int]bool{}
	for _, h := range list {
		_ = filepath.WalkDir(filepath.Join(h.Mount, name), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil
			}
			for field := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					seen[pid] = true
				}
			}
			return nil
		})
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	sort.Ints(pids)
	return pids
}

// Kill ends every process in the cgroup name but this one, and waits until
// none is left.
func Kill(list []Hierarchy, name string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		thaw(list, name)
		left := 0
		for _, pid := range Pids(list, name) {
			if pid == os.Getpid() {
				continue
			}
			left++
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in the cgroup %s did not end within %s of SIGKILL (uninterruptible I/O?): see `ps -eo pid,stat,wchan,cmd`", left, name, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// thaw lets frozen processes run, or they would not die (version 1).
func thaw(list []Hierarchy, name string) {
	for _, h := range list {
		if h.V2 || !strings.Contains(h.Options, "freezer") {
			continue
		}
		_ = filepath.WalkDir(filepath.Join(h.Mount, name), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				_ = os.WriteFile(filepath.Join(path, "freezer.state"), []byte("THAWED"), 0o644)
			}
			return nil
		})
	}
}

// Remove deletes the cgroup name and all below it.
func Remove(list []Hierarchy, name string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		var last error
		for _, h := range list {
			if err := removeTree(filepath.Join(h.Mount, name)); err != nil {
				last = err
			}
		}
		if last == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("removing the cgroup %s: %w", name, last)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeTree deletes from the leaves up; the files in a cgroup are not ours to
// delete, so os.RemoveAll does not do.
func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
