// Package daemon starts programs that outlive the command which started them,
// and ends them again.
package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/pid"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
)

// Spec is a program to run in a room.
type Spec struct {
	Name string // names its log and its record
	Room string
	Argv []string
	Env  []string // the whole environment
}

// Environment is what the cluster's own programs get: nothing of the caller's,
// above all not its proxy.
func Environment(l layout.Layout, more ...string) []string {
	return append([]string{
		"PATH=" + l.Bin() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8",
	}, more...)
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?$`)

// File is where a daemon's record lies, Log what it printed.
func File(l layout.Layout, name string) string { return filepath.Join(l.RunDir(), name+".pid") }
func Log(l layout.Layout, name string) string  { return filepath.Join(l.LogDir(), name+".log") }

// Find looks a daemon up by name.
func Find(l layout.Layout, name string) (pid.Identity, bool) {
	id, err := pid.Read(File(l, name))
	return id, err == nil && id.Alive()
}

// Start runs a daemon; one of that name which runs already is left as it is.
func Start(l layout.Layout, spec Spec) (pid.Identity, error) {
	if !validName.MatchString(spec.Name) {
		return pid.Identity{}, fmt.Errorf("%q is no name for a daemon: use lower-case letters, digits, dots and dashes", spec.Name)
	}
	if id, running := Find(l, spec.Name); running {
		return id, nil
	}
	log, err := os.OpenFile(Log(l, spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return pid.Identity{}, fmt.Errorf("opening the log of %s: %w", spec.Name, err)
	}
	defer log.Close()
	cmd := room.Command(l, spec.Room, spec.Argv...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, spec.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := room.Launch(cmd); err != nil {
		return pid.Identity{}, fmt.Errorf("starting %s: %w", spec.Name, err)
	}
	id, err := pid.Of(cmd.Process.Pid)
	if err != nil {
		return pid.Identity{}, fmt.Errorf("starting %s: it ended at once: %s", spec.Name, Tail(l, spec.Name))
	}
	if err := id.Write(File(l, spec.Name)); err != nil {
		_ = cmd.Process.Kill()
		return pid.Identity{}, err
	}
	go func() { _ = cmd.Wait() }() // no zombie for as long as this command runs
	return id, nil
}

// Stop signals a daemon and waits for its end. A TERM that is not followed in
// time is followed by a KILL.
func Stop(l layout.Layout, name string, signal syscall.Signal, patience time.Duration) error {
	id, err := pid.Read(File(l, name))
	if err != nil {
		return fmt.Errorf("no daemon %q was started in %s: see `devcluster status --dir %s`", name, l.Dir, l.Dir)
	}
	if err := id.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", name, err)
	}
	if !id.WaitGone(patience) {
		if signal != syscall.SIGTERM {
			return fmt.Errorf("stopping %s: process %d still runs %s after signal %d", name, id.Number, patience, signal)
		}
		if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping %s: %w", name, err)
		}
		if !id.WaitGone(patience) {
			return fmt.Errorf("stopping %s: process %d survives SIGKILL", name, id.Number)
		}
	}
	pid.Remove(File(l, name))
	return nil
}

// Names lists every daemon that was started and not stopped.
func Names(l layout.Layout) []string {
	files, _ := filepath.Glob(filepath.Join(l.RunDir(), "*.pid"))
	names := make([]string, 0, len(files))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".pid"))
	}
	return names
}

// Tail is the end of a daemon's log, for an error message.
func Tail(l layout.Layout, name string) string {
	const most = 1500
	file, err := os.Open(Log(l, name))
	if err != nil {
		return "it printed nothing"
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(file)
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "it printed nothing"
	}
	lines := strings.Split(text, "\n")
	if len(lines) > 6 {
		lines = lines[len(lines)-6:]
	}
	return "the end of " + Log(l, name) + ":\n  " + strings.Join(lines, "\n  ")
}

// Check finds out at once that a daemon somebody waits for has died.
func Check(l layout.Layout, name string) error {
	if _, running := Find(l, name); !running {
		return fmt.Errorf("%s has ended; %s", name, Tail(l, name))
	}
	return nil
}

// Run calls a program in a room and waits for it, with the cluster's own
// environment; the error carries what it printed.
func Run(l layout.Layout, roomName string, argv ...string) ([]byte, error) {
	cmd := room.Command(l, roomName, argv...)
	cmd.Env = Environment(l)
	out, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return out, fmt.Errorf("%s: %s", strings.Join(argv, " "), strings.TrimSpace(string(out)))
		}
		return out, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return out, nil
}
