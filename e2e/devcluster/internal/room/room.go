// Package room makes a small computer out of namespaces: a network, a mount
// table, a host name and a cgroup root of its own. The ordinary node is one,
// every machine is one. All programs of a room share its mount table, so that
// a volume which an agent mounts is seen by the runtime beside it, and the
// mounts end with the last of the room's processes: nothing is left on the host.
package room

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/e2e/devcluster/internal/cgroup"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/pid"
)

// Spec is what a room is made from; it lies as room.json in the room's folder.
type Spec struct {
	Name      string            `json:"name"`
	Dir       string            `json:"dir"`       // the room's own folder
	Cgroup    string            `json:"cgroup"`    // its cgroup, seen from the host
	SocketDir string            `json:"socketDir"` // shared with the host
	Hosts     map[string]string `json:"hosts"`     // lines of /etc/hosts
	Pause     string            `json:"pause"`     // the program that holds the room
	Shadow    []string          `json:"shadow"`    // kernel settings the room may write without changing the host
}

// HoldCommand and EnterCommand are hidden subcommands of devcluster.
const (
	HoldCommand  = "room-hold"
	EnterCommand = "room-enter"
)

func specFile(l layout.Layout, name string) string {
	return filepath.Join(l.RoomDir(name), "room.json")
}

// Make starts the process that holds a room's namespaces, and returns its pid
// once they are ready. A second call finds the first one's.
func Make(l layout.Layout, spec Spec, log *os.File) (int, error) {
	if holder, err := Pid(l, spec.Name); err == nil {
		return holder, nil
	}
	for _, folder := range []string{"varlib", "varlog", "tmp"} {
		if err := os.MkdirAll(filepath.Join(spec.Dir, folder), 0o755); err != nil {
			return 0, fmt.Errorf("making the room %s: %w", spec.Name, err)
		}
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(specFile(l, spec.Name), data, 0o644); err != nil {
		return 0, fmt.Errorf("making the room %s: %w", spec.Name, err)
	}
	ready, done, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe", HoldCommand, specFile(l, spec.Name))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{done}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = done.Close()
		return 0, fmt.Errorf("making the room %s: %w", spec.Name, err)
	}
	_ = done.Close()
	answer := make([]byte, 512)
	n, _ := ready.Read(answer)
	if text := string(answer[:n]); text != "ready" {
		_ = cmd.Wait()
		return 0, fmt.Errorf("making the room %s: %s", spec.Name, strings.TrimSpace(text))
	}
	holder, err := pid.Of(cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("making the room %s: %w", spec.Name, err)
	}
	return holder.Number, holder.Write(pidFile(l, spec.Name))
}

// Pid is the process that holds the room, when it runs.
func Pid(l layout.Layout, name string) (int, error) {
	if !layout.Exists(l.RoomDir(name)) {
		return 0, fmt.Errorf("there is no %s in %s: see the names with `devcluster status --dir %s`, or start a cluster with `devcluster up --dir %s`", name, l.Dir, l.Dir, l.Dir)
	}
	holder, err := pid.Read(pidFile(l, name))
	if err != nil || !holder.Alive() {
		return 0, fmt.Errorf("%s is not running: start the cluster with `devcluster up --dir %s`", name, l.Dir)
	}
	return holder.Number, nil
}

func pidFile(l layout.Layout, name string) string {
	return filepath.Join(l.RoomDir(name), "room.pid")
}

// Inhabitants lists processes in a room's network, however they came there.
func Inhabitants(l layout.Layout) []int {
	names, _ := filepath.Glob(filepath.Join("/run/netns", l.NetnsPrefix()+"*"))
	rooms := map[uint64]bool{}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			rooms[inode(info)] = true
		}
	}
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if info, err := os.Stat(link); err == nil && rooms[inode(info)] {
			number, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, number)
		}
	}
	return pids
}

func inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// Enter turns the calling process into argv, inside the room. It returns only
// when that failed. The pid stays the same.
func Enter(l layout.Layout, name string, env, argv []string) error {
	holder, err := Pid(l, name)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(specFile(l, name))
	if err != nil {
		return fmt.Errorf("entering %s: %w", name, err)
	}
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("entering %s: %w", name, err)
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Join(hierarchies, leaf(hierarchies, spec.Cgroup)); err != nil {
		return err
	}
	cwd, _ := os.Getwd()
	runtime.LockOSThread() // namespaces belong to the thread; exec makes it the process
	// A mount namespace can be entered only by a thread with a root of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering %s: %w", name, err)
	}
	var handles []int
	kinds := []string{"cgroup", "net", "uts", "mnt"} // mnt last: it changes what paths mean
	for _, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", holder, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("entering %s: %w", name, err)
		}
		handles = append(handles, fd)
	}
	for i, fd := range handles {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("entering the %s namespace of %s: %w: this needs root", kinds[i], name, err)
		}
	}
	if err := os.Chdir(cwd); err != nil {
		_ = os.Chdir("/")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("in %s: %w", name, err)
	}
	if err := syscall.Exec(path, argv, withoutAnswer(env)); err != nil {
		return fmt.Errorf("running %s in %s: %w", path, name, err)
	}
	return nil
}

// Command builds a call that runs argv inside the room.
func Command(l layout.Layout, name string, argv ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{EnterCommand, "--dir", l.Dir, name, "--"}, argv...)...)
}

// answerVariable tells EnterCommand which descriptor to report on.
const answerVariable = "DEVCLUSTER_ANSWER_FD"

// Launch starts a Command and returns when argv runs in the room, or with the
// reason why it does not.
func Launch(cmd *exec.Cmd) error {
	answer, child, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	cmd.ExtraFiles = []*os.File{child}
	cmd.Env = append(cmd.Env, answerVariable+"=3")
	err = cmd.Start()
	_ = child.Close()
	if err != nil {
		return err
	}
	// The descriptor closes by itself when argv takes over.
	trouble, err := io.ReadAll(answer)
	if err == nil && len(trouble) > 0 {
		err = errors.New(strings.TrimSpace(string(trouble)))
	}
	if err != nil {
		_ = cmd.Wait()
	}
	return err
}

// Answer reports a failed Enter to the Launch that waits for it, if any.
func Answer(err error) {
	if os.Getenv(answerVariable) == "3" && err != nil {
		_, _ = unix.Write(3, []byte(err.Error()))
	}
}

// withoutAnswer prepares descriptor and environment for the program to come.
func withoutAnswer(env []string) []string {
	if os.Getenv(answerVariable) != "3" {
		return env
	}
	unix.CloseOnExec(3)
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return strings.HasPrefix(entry, answerVariable+"=") })
}

// leaf is where a room's own processes sit. Under version 2 a cgroup that hands
// controllers to its children may hold no process itself.
func leaf(list []cgroup.Hierarchy, name string) string {
	if cgroup.Unified(list) {
		return name + "/daemons"
	}
	return name
}
