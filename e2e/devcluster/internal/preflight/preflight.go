// Package preflight finds out before anything is made whether a cluster can
// run here, and says of each hindrance what to do about it.
package preflight

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/ainode/ainode/e2e/devcluster/internal/image"
)

// minFree is what a first `up` takes: the binaries, and the modules and build
// cache behind them.
const minFree = 6 << 30

// minFreeBuilt is enough where everything is built.
const minFreeBuilt = 1 << 30

// Package is one of the distribution's, and how to see that it is there.
type Package struct {
	Name    string
	present func() bool
}

// Packages are the programs that are not built here.
func Packages() []Package {
	return []Package{
		{"runc", inPath("runc")},
		{"iptables", inPath("iptables")},
		{"iproute2", inPath("ip")},
		{"busybox-static", staticAt("/usr/bin/busybox", "/bin/busybox")},
		{"bash-static", staticAt("/bin/bash-static", "/usr/bin/bash-static")},
	}
}

func inPath(program string) func() bool {
	return func() bool { _, err := exec.LookPath(program); return err == nil }
}

func staticAt(files ...string) func() bool {
	return func() bool {
		for _, file := range files {
			if image.IsStatic(file) {
				return true
			}
		}
		return false
	}
}

// Facts is what matters about this machine.
type Facts struct {
	OS              string
	UID             int
	Go              bool     // the go command is there
	NeedGo          bool     // something has to be built
	Missing         []string // packages
	AptGet          bool
	FreeBytes       uint64
	Dir             string
	Filesystems     string // /proc/filesystems
	CgroupsWritable bool
}

// Gather looks at this machine. dir need not exist; its nearest parent counts.
func Gather(dir string, needBuild bool) Facts {
	facts := Facts{
		OS: runtime.GOOS, UID: os.Geteuid(), Dir: dir, NeedGo: needBuild,
		Go: inPath("go")(), AptGet: inPath("apt-get")(), FreeBytes: freeBytes(dir),
		CgroupsWritable: syscall.Access("/sys/fs/cgroup", 2) == nil,
	}
	if data, err := os.ReadFile("/proc/filesystems"); err == nil {
		facts.Filesystems = string(data)
	}
	for _, pkg := range Packages() {
		if !pkg.present() {
			facts.Missing = append(facts.Missing, pkg.Name)
		}
	}
	return facts
}

func freeBytes(dir string) uint64 {
	for path := dir; ; {
		var info syscall.Statfs_t
		if err := syscall.Statfs(path, &info); err == nil {
			return info.Bavail * uint64(info.Bsize)
		}
		cut := strings.LastIndexByte(path, '/')
		if cut <= 0 {
			return 0
		}
		path = path[:cut]
	}
}

// Problem is one hindrance: what is wrong, and what to do.
type Problem struct {
	What string
	Fix  string
}

func (p Problem) String() string { return p.What + "\n  fix: " + p.Fix }

// Judge turns facts into problems; none means go ahead.
func Judge(f Facts) []Problem {
	var problems []Problem
	add := func(what, fix string) { problems = append(problems, Problem{what, fix}) }
	if f.OS != "linux" {
		add("a cluster runs on Linux only, and this is "+f.OS, "run it on a Linux machine or in a Linux virtual machine")
		return problems
	}
	if f.UID != 0 {
		add(fmt.Sprintf("network namespaces, mounts and cgroups take root, and this is user %d", f.UID), "run the same command with sudo")
	}
	if f.NeedGo && !f.Go {
		add("the go command is not in the PATH, and the cluster's programs are built from source", "install Go 1.26 or later, and with sudo keep the PATH: sudo env PATH=$PATH …")
	}
	if len(f.Missing) > 0 {
		list := strings.Join(f.Missing, " ")
		fix := "apt-get install -y " + list
		if !f.AptGet {
			fix = "install these from your distribution (on Debian: apt-get install -y " + list + ")"
		}
		add("not installed: "+strings.Join(f.Missing, ", "), fix)
	}
	need := uint64(minFreeBuilt)
	if f.NeedGo {
		need = minFree
	}
	if f.FreeBytes < need {
		add(fmt.Sprintf("only %.1f GiB are free where %s lies, and %d GiB are needed", float64(f.FreeBytes)/(1<<30), f.Dir, need>>30), "free some space (`go clean -cache` gives gigabytes back), or choose another --dir")
	}
	if f.Filesystems != "" && !strings.Contains(f.Filesystems, "\toverlay\n") {
		add("this kernel has no overlay file system loaded, which container images need", "modprobe overlay")
	}
	if f.UID == 0 && !f.CgroupsWritable {
		add("/sys/fs/cgroup is not writable, so containers cannot be limited or found again", "outside a container it is writable; inside one, start it with --privileged")
	}
	return problems
}

// Install fetches missing packages from the distribution. It says what it runs.
func Install(missing []string, say func(format string, args ...any)) error {
	args := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	say("not installed: %s; running: apt-get %s", strings.Join(missing, ", "), strings.Join(args, " "))
	if err := aptGet(args...); err == nil {
		return nil
	}
	// A fresh machine has no package lists yet.
	say("running: apt-get update, then again")
	if err := aptGet("update"); err != nil {
		return err
	}
	return aptGet(args...)
}

func aptGet(args ...string) error {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, lines[len(lines)-1])
	}
	return nil
}

// RestrictedOOM tells whether this process may not lower an oom_score_adj, as
// without CAP_SYS_RESOURCE. A runtime that tries anyway fails to start containers.
func RestrictedOOM() bool {
	const capSysResource = 24
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	return !hasCapability(string(data), capSysResource)
}

func hasCapability(status string, number uint) bool {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var mask uint64
			_, err := fmt.Sscanf(strings.TrimSpace(value), "%x", &mask)
			return err == nil && mask&(1<<number) != 0
		}
	}
	return false
}
