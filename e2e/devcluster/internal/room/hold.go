package room

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/e2e/devcluster/internal/cgroup"
)

// Hold builds the room described in file around the calling process and then
// becomes the pause program, which keeps it. Progress goes to descriptor 3:
// "ready", or what went wrong. It must be called on the main thread, locked.
func Hold(file string) error {
	answer := os.NewFile(3, "answer")
	if err := hold(file, answer); err != nil {
		_, _ = fmt.Fprintln(answer, err)
		return err
	}
	return nil
}

func hold(file string, answer *os.File) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Create(hierarchies, spec.Cgroup); err != nil {
		return err
	}
	if err := cgroup.Join(hierarchies, spec.Cgroup); err != nil {
		return err
	}
	if unix.Gettid() != os.Getpid() {
		return errors.New("not on the main thread: the program has to lock it in an init function")
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("making namespaces: %w: this needs root and a kernel with network, mount and cgroup namespaces", err)
	}
	if inner := leaf(hierarchies, spec.Cgroup); inner != spec.Cgroup {
		if err := cgroup.Create(hierarchies, inner); err != nil {
			return err
		}
		if err := cgroup.Join(hierarchies, inner); err != nil {
			return err
		}
		cgroup.Delegate(filepath.Join(hierarchies[0].Mount, spec.Cgroup))
	}
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := mountAll(spec, hierarchies); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("setting net.ipv4.%s: %w", name, err)
		}
	}
	argv0, err := filepath.EvalSymlinks(spec.Pause)
	if err != nil {
		return err
	}
	if _, err := answer.WriteString("ready"); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	return syscall.Exec(argv0, []string{"devcluster-" + spec.Name}, []string{})
}

// mountAll gives the room its own /sys, cgroups, /run, /var/lib, /var/log and
// resolver, so that a program with its usual paths stays inside the room's folder.
func mountAll(spec Spec, hierarchies []cgroup.Hierarchy) error {
	// Mounts of the host still arrive, the room's own never leave; among the
	// room's containers they are shared, as kubelets expect.
	for _, flag := range []uintptr{unix.MS_SLAVE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("setting the propagation of mounts: %w", err)
		}
	}
	resolver, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		resolver = "/etc/resolv.conf"
	}
	if err := mountSys(hierarchies); err != nil {
		return err
	}
	if err := mountRun(spec); err != nil {
		return err
	}
	if err := writeNames(spec, resolver); err != nil {
		return err
	}
	binds := map[string]string{"varlib": "/var/lib", "varlog": "/var/log"}
	for source, target := range binds {
		if err := unix.Mount(filepath.Join(spec.Dir, source), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	return shadow(spec)
}

// mountSys mounts a /sys that shows this network namespace's devices, and on
// it cgroups whose root is the room's.
func mountSys(hierarchies []cgroup.Hierarchy) error {
	links := map[string]string{} // cpu -> cpu,cpuacct and the like
	entries, _ := os.ReadDir("/sys/fs/cgroup")
	for _, entry := range entries {
		if entry.Type()&fs.ModeSymlink != 0 {
			if to, err := os.Readlink(filepath.Join("/sys/fs/cgroup", entry.Name())); err == nil {
				links[entry.Name()] = to
			}
		}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	if !cgroup.Unified(hierarchies) {
		if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755,size=1m"); err != nil {
			return fmt.Errorf("mounting /sys/fs/cgroup: %w", err)
		}
	}
	sort.Slice(hierarchies, func(i, j int) bool { return hierarchies[i].Mount < hierarchies[j].Mount })
	for _, h := range hierarchies {
		if !strings.HasPrefix(h.Mount, "/sys/fs/cgroup") {
			continue
		}
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return fmt.Errorf("mounting %s: %w", h.Mount, err)
		}
		kind := "cgroup"
		if h.V2 {
			kind = "cgroup2"
		}
		if err := unix.Mount(kind, h.Mount, kind, 0, h.Options); err != nil {
			return fmt.Errorf("mounting %s: %w", h.Mount, err)
		}
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join("/sys/fs/cgroup", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking the cgroup %s: %w", name, err)
		}
	}
	return nil
}

// mountRun gives the room an empty /run that still shows the socket folder.
func mountRun(spec Spec) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, spec.SocketDir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening %s: %w", spec.SocketDir, err)
	}
	defer unix.Close(tree)
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if !strings.HasPrefix(spec.SocketDir, "/run/") {
		return nil
	}
	if err := os.MkdirAll(spec.SocketDir, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, spec.SocketDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting %s: %w", spec.SocketDir, err)
	}
	return nil
}

// writeNames puts the room's resolv.conf and hosts over the host's. Nothing
// listens at 127.0.0.1:53, so a look-up fails at once instead of waiting for a
// server that is out of reach.
func writeNames(spec Spec, resolver string) error {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
	for address, names := range spec.Hosts {
		hosts += address + "\t" + names + "\n"
	}
	for target, text := range map[string]string{
		resolver:     ResolvConf,
		"/etc/hosts": hosts,
	} {
		source := filepath.Join(spec.Dir, "tmp", filepath.Base(target))
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			// Its folder was hidden by the room's own /run, or never there.
			if !strings.HasPrefix(target, "/run/") {
				continue
			}
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(target, nil, 0o644); err != nil {
				return err
			}
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	return nil
}

// ResolvConf answers every look-up with an immediate refusal.
const ResolvConf = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

// shadow covers kernel settings that a kubelet sets for the whole computer by
// files of the room: a cluster for tests has no business changing them.
func shadow(spec Spec) error {
	for _, setting := range spec.Shadow {
		value, err := os.ReadFile(setting)
		if err != nil {
			continue // this kernel does not have it
		}
		source := filepath.Join(spec.Dir, "tmp", strings.ReplaceAll(strings.TrimPrefix(setting, "/"), "/", "."))
		if err := os.WriteFile(source, value, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(source, setting, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("covering %s: %w", setting, err)
		}
	}
	return nil
}
