package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

func root(context.Context, *sight) []Finding {
	if os.Geteuid() != 0 {
		return found(Error, "you are not root", "the agent's state, the runtime and the cards can't all be looked at", "Type it again:  sudo ainode-agent doctor")
	}
	return nil
}

// needed are the controllers without which a pod's limits don't hold.
var needed = []string{"cpu", "memory", "pids"}

// cgroups are of version 2 where the file cgroup.controllers is at the mount.
func cgroups(_ context.Context, s *sight) []Finding {
	mount := filepath.Join(s.Root, "sys/fs/cgroup")
	missing := func(has func(string) bool) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(needed), has), ", ")
	}
	version, lacking := "version 2", ""
	if raw, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers")); err == nil {
		lacking = missing(func(c string) bool { return slices.Contains(strings.Fields(string(raw)), c) })
	} else {
		version = "version 1"
		lacking = missing(func(c string) bool {
			_, err := os.Stat(filepath.Join(mount, c))
			return err == nil
		})
	}
	if lacking != "" {
		return found(Error, fmt.Sprintf("cgroups %s lack: %s", version, lacking), "limits of pods would not hold",
			"Start the kernel with them, then see:  cat /proc/cgroups")
	}
	return saw(version + " with " + strings.Join(needed, ", "))
}

// synchronised asks the kernel whether somebody keeps its clock (adjtimex(2)).
func synchronised(context.Context, *sight) []Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return found(Warning, "the kernel does not tell whether its clock is kept: "+err.Error(), "a wrong clock makes certificates and tokens invalid")
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return found(Warning, "nobody keeps the clock", "when it is off, certificates and tokens become invalid and a living node looks lost", "Have it kept:  timedatectl set-ntp true")
	}
	return saw("the clock is kept")
}

// leastDisk is the kubelet's eviction threshold, which the Node reports by.
const leastDisk = 10 // per cent available

func disk(_ context.Context, s *sight) []Finding {
	var all []Finding
	seen := map[unix.Fsid]bool{}
	for _, dir := range []string{string(s.Config.StateDir), s.Config.LogDir, s.status.rootDir()} {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		for errors.Is(err, unix.ENOENT) && dir != "/" && dir != "" { // it is made when it is needed
			dir = filepath.Dir(dir)
			err = unix.Statfs(dir, &fs)
		}
		if dir == "" || err == nil && (seen[fs.Fsid] || fs.Blocks == 0) {
			continue
		}
		if err != nil {
			all = append(all, found(Warning, fmt.Sprintf("the file system of %s can't be measured: %v", dir, err), "a full one stops pods from starting")...)
			continue
		}
		seen[fs.Fsid] = true
		free := fs.Bavail * 100 / fs.Blocks
		text := fmt.Sprintf("%d %% of the file system of %s is free", free, dir)
		if free < leastDisk {
			all = append(all, found(Error, text, fmt.Sprintf("below %d %% the node reports DiskPressure, and no pod is sent to it", leastDisk),
				"See what fills it:  du -xh --max-depth=2 "+dir)...)
			continue
		}
		all = append(all, saw(text)...)
	}
	return all
}

// leastMemory is the kubelet's eviction threshold, in bytes.
const leastMemory = 100 << 20

func memory(_ context.Context, s *sight) []Finding {
	free, err := machine.Meminfo(s.Root, "MemAvailable")
	if err != nil {
		return found(Warning, err.Error(), "")
	}
	text := fmt.Sprintf("%d MiB available", free>>20)
	if free < leastMemory {
		return found(Error, text, "below 100 MiB the node reports MemoryPressure", "See who has it:  ps aux --sort=-rss | head")
	}
	return saw(text)
}
