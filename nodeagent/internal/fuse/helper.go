package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// start starts the helper in a session of its own, with nothing of the agent's
// environment, and tells when it has ended. It lives on when the agent ends: the unit
// of the agent has KillMode=process.
func (m Mount) start(c Command) (ended <-chan struct{}, err error) {
	log, err := os.OpenFile(m.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the FUSE helper's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	command := exec.Command(c.Program, c.Args...)
	command.Dir = "/"
	command.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the FUSE helper: %w", err)
	}
	// The agent is the last that the kernel kills for memory, a helper need not be: a new
	// one takes its place.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", command.Process.Pid), []byte("0"), 0)
	noCore(command.Process.Pid)
	done := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(done)
	}()
	return done, nil
}

// noCore keeps a helper's memory, with its keys, out of a file if it crashes: by the
// limit on files, and by what is left out of a core (core(5)), since a program that
// takes cores (core_pattern) is asked whatever the limit.
func noCore(pid int) {
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/coredump_filter", pid), []byte("0"), 0)
}

// helpers are the processes that were given this mount.
func (m Mount) helpers() ([]*os.Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []*os.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !m.isHelper(pid) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// The process has been got hold of by now; its number may have been another's.
		if m.isHelper(pid) {
			all = append(all, p)
		}
	}
	return all, nil
}

// isHelper tells a helper by its mount point. A container could run something with the
// same arguments, but not among the machine's mounts.
func (m Mount) isHelper(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	given := false
	for argument := range bytes.SplitSeq(text, []byte{0}) {
		given = given || string(argument) == m.Beside()
	}
	if !given {
		return false
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && its == ours
}

// end waits until no helper lives, and kills those that do after grace.
func (m Mount) end(ctx context.Context, grace time.Duration) (killed bool, err error) {
	until := time.Now().Add(grace)
	for {
		helpers, err := m.helpers()
		if err != nil || len(helpers) == 0 {
			return killed, err
		}
		if killed = !time.Now().Before(until); killed {
			for _, h := range helpers {
				if err := h.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					return killed, fmt.Errorf("end the FUSE helper: %w", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return killed, ctx.Err()
		case <-time.After(look):
		}
	}
}

// Ended waits until the mount has no living helper, or ctx is done.
func (m Mount) Ended(ctx context.Context) error {
	for {
		helpers, err := m.helpers()
		if err != nil || len(helpers) == 0 {
			return err
		}
		for _, h := range helpers {
			if err := ended(ctx, h.Pid); err != nil {
				return err
			}
		}
	}
}

// ended waits for the end of a process that need not be a child. It costs nothing
// meanwhile: a pidfd is readable when its process has ended (pidfd_open(2)).
func ended(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch the FUSE helper: %w", err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join("/proc", strconv.Itoa(pid)))
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch the FUSE helper: %w", err)
	}
	err = conn.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("watch the FUSE helper: %w", err)
	}
	return nil
}
