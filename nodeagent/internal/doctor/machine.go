package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

func root(context.Context, *sight) []diagnosis.Finding {
	if os.Geteuid() != 0 {
		return found(Error, "you are not root", "the agent's state, the runtime and the cards can't all be looked at", "Type it again:  sudo ainode-agent doctor")
	}
	return nil
}

// needed are the controllers without which a pod's limits don't hold.
var needed = []string{"cpu", "memory", "pids"}

// cgroups are of version 2 where the file cgroup.controllers is at the mount.
func cgroups(_ context.Context, s *sight) []diagnosis.Finding {
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
func synchronised(context.Context, *sight) []diagnosis.Finding {
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

// pressure reads memory, disks and process ids as the agent does, and judges them by
// the thresholds that it is given.
func pressure(ctx context.Context, s *sight) []diagnosis.Finding {
	thresholds, err := eviction.Parse(s.Config.EvictionHard)
	if err != nil {
		return found(Error, err.Error(), "the agent does not start")
	}
	readings := s.machine().Read(ctx)
	var all []diagnosis.Finding
	for _, signal := range thresholds.Met(readings) {
		r := readings[signal]
		all = append(all, found(Error, fmt.Sprintf("%s is %d of %d: %s", signal, r.Available, r.Capacity, statement(s.Config.EvictionHard, signal)),
			"the node reports pressure: no pod is sent to it, and pods are evicted", "See what takes it:  df -h; df -i; ps aux --sort=-rss | head")...)
	}
	if len(all) > 0 {
		return all
	}
	var free []string
	for _, signal := range []eviction.Signal{eviction.MemoryAvailable, eviction.NodeFsAvailable, eviction.ImageFsAvailable} {
		if r, known := readings[signal]; known && r.Capacity > 0 {
			free = append(free, fmt.Sprintf("%s %d %%", signal, r.Available*100/r.Capacity))
		}
	}
	return saw(strings.Join(free, ", "))
}

// machine is what the agent will read.
func (s *sight) machine() eviction.Machine {
	return eviction.Machine{
		Root: s.Root, NodeFs: standing(string(s.Config.StateDir)),
		ImageFs: func(context.Context) (machine.Disk, error) {
			return machine.DiskOf(standing(s.status.Containerd.RootDir))
		},
	}
}

// statement is what an --eviction-hard says of one signal.
func statement(thresholds string, signal eviction.Signal) string {
	for one := range strings.SplitSeq(thresholds, ",") {
		if name, _, _ := strings.Cut(one, "<"); strings.TrimSpace(name) == string(signal) {
			return strings.TrimSpace(one)
		}
	}
	return ""
}

// standing is path, or what there is of it: a folder that is made when it is needed
// lies on the disk of the one above.
func standing(path string) string {
	for path != "" && path != "/" {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}
