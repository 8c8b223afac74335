// Package critest gives tests a real containerd of their own, with images that
// are made on the spot. It needs root and runc, and builds containerd from its Go
// module once a machine (a minute and a half; then it is there).
package critest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// containerdModule is the version that the product is tested with.
const containerdModule = "github.com/containerd/containerd/v2/cmd/%s@v2.4.2"

var programs = []string{"containerd", "containerd-shim-runc-v2", "ctr"}

// Containerd is a running containerd.
type Containerd struct {
	// Socket it listens at.
	Socket string
	// Runtime is a connection to it.
	Runtime *cri.Runtime

	setup    Setup
	bin, dir string
	process  *exec.Cmd
	log      string
}

// binaries returns the folder of containerd's programs, built if need be.
// AINODE_CONTAINERD_BIN names another folder that has them.
func binaries(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("AINODE_CONTAINERD_BIN"); dir != "" {
		return dir
	}
	return Programs(t, "containerd-v2.4.2", containerdModule, programs...)
}

// Programs returns a folder with programs of a Go module, built once a machine. module
// is PATH/%s@VERSION, name that of the folder, which has the version in it too.
func Programs(t testing.TB, name, module string, programs ...string) string {
	t.Helper()
	dir := cache(t, name)
	install(t, dir, module, programs)
	return dir
}

// cache is a folder that outlives the test.
func cache(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(dir, "ainode-test", name)
}

// install builds programs of a module into dir, unless they are there.
func install(t testing.TB, dir, module string, programs []string) {
	t.Helper()
	once(t, dir, programs, func(program string) {
		goTool(t, os.TempDir(), []string{"GOBIN=" + filepath.Join(dir, "part")}, "install", fmt.Sprintf(module, program))
	})
}

// once has build put programs into the folder part of dir, unless they are there.
func once(t testing.TB, dir string, programs []string, build func(program string)) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	// The tests of several rooms run at once, in a process each: one builds, the
	// others wait, instead of all compiling the same.
	lock, err := os.OpenFile(filepath.Join(dir, "building"), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	defer func() { _ = lock.Close() }() // and so the lock goes
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(program))); err == nil {
			continue
		}
		build(program) // not in its place at once: a build that is cut off would leave half a program there
		require.NoError(t, os.Rename(filepath.Join(dir, "part", filepath.Base(program)), filepath.Join(dir, filepath.Base(program))))
	}
}

// goTool runs the go command in a folder, with more of an environment.
func goTool(t testing.TB, dir string, env []string, args ...string) {
	t.Helper()
	command := exec.Command("go", args...)
	command.Dir, command.Env = dir, append(append(os.Environ(), "GOFLAGS="), env...)
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
}

// Start runs a containerd until the test ends, then takes away all that it left.
func Start(t testing.TB) *Containerd {
	t.Helper()
	return StartAs(t, Setup{})
}

// StartAs is Start with another containerd, or other settings.
func StartAs(t testing.TB, setup Setup) *Containerd {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test runs containers")
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test runs containers: run it as root, or leave it out with -short")
	}
	c := &Containerd{setup: setup, bin: setup.programs(t), dir: t.TempDir()}
	c.Socket = filepath.Join(c.dir, "c.sock")
	c.log = filepath.Join(c.dir, "containerd.log")
	t.Cleanup(c.stop)
	c.run(t)
	c.Load(t, Pause, nil)
	c.Load(t, Busybox, nil)
	return c
}

func (c *Containerd) run(t testing.TB) {
	t.Helper()
	config := filepath.Join(c.dir, "config.toml")
	require.NoError(t, os.WriteFile(config, []byte(c.setup.config(c)), 0o600))
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	c.process = exec.Command(filepath.Join(c.bin, "containerd"), "--config", config)
	c.process.Env = append(os.Environ(), "PATH="+c.bin+":"+os.Getenv("PATH"))
	c.process.Stdout, c.process.Stderr = log, log
	require.NoError(t, c.process.Start())

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c.Runtime, err = cri.Connect(ctx, c.Socket)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			text, _ := os.ReadFile(c.log)
			t.Fatalf("containerd does not answer: %v\n%s", err, text)
		}
	}
}

// CDIDir is where this containerd reads CDI specs.
func (c *Containerd) CDIDir() string { return filepath.Join(c.dir, "cdi") }

// Restart ends containerd as a crash does and starts it again; its containers live.
func (c *Containerd) Restart(t testing.TB) {
	t.Helper()
	require.NoError(t, c.Runtime.Close(context.Background()))
	require.NoError(t, c.process.Process.Kill())
	_ = c.process.Wait()
	c.run(t)
}

// stop ends all containers, containerd, and every mount below its folder.
func (c *Containerd) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.Runtime != nil {
		sandboxes, _ := c.Runtime.ListPodSandbox(ctx, nil)
		for _, s := range sandboxes {
			_ = c.Runtime.StopPodSandbox(ctx, s.Id)
			_ = c.Runtime.RemovePodSandbox(ctx, s.Id)
		}
		_ = c.Runtime.Close(ctx)
	}
	if c.process != nil && c.process.Process != nil {
		_ = c.process.Process.Signal(syscall.SIGTERM)
		_ = c.process.Wait()
	}
	unmountBelow(c.dir)
}

// Log is what containerd has written.
func (c *Containerd) Log() string {
	text, _ := os.ReadFile(c.log)
	return string(text)
}
