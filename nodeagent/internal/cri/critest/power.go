package critest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// PowerOff ends containerd, its shims and its containers as a loss of power does:
// nobody can tell anybody. Then it takes away what a boot would not find: what is
// mounted below containerd's folder and the others, and what lies in memory on a
// machine. Processes of others that name such a folder on their command line, or are
// in a cgroup of that name, end too. Boot starts containerd again.
func (c *Containerd) PowerOff(t testing.TB, cgroup string, folders ...string) {
	t.Helper()
	folders = append(folders, c.dir)
	require.NoError(t, c.Runtime.Close(context.Background()))
	require.NoError(t, c.process.Process.Kill())
	_ = c.process.Wait()
	require.Eventually(t, func() bool {
		victims := processes(t, cgroup, folders)
		for _, pid := range victims {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return len(victims) == 0
	}, time.Minute, 10*time.Millisecond, "all processes end")
	for _, folder := range folders {
		unmountBelow(folder)
		require.Empty(t, Mounts(folder))
	}
	for _, volatile := range []string{"state", filepath.Base(c.Socket), filepath.Base(c.Socket) + ".ttrpc"} {
		require.NoError(t, os.RemoveAll(filepath.Join(c.dir, volatile)))
	}
}

// Boot starts containerd after PowerOff.
func (c *Containerd) Boot(t testing.TB) {
	t.Helper()
	c.run(t)
}

// processes are those that live and name one of the folders, or are in the cgroup.
func processes(t testing.TB, cgroup string, folders []string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		groups, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if len(command) == 0 { // dead, and not yet reaped
			continue
		}
		if bytes.Contains(groups, []byte(cgroup+"/")) || slices.ContainsFunc(folders, func(f string) bool { return bytes.Contains(command, []byte(f)) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Mounts are the mount points at and below a folder, the first mounted first.
func Mounts(folder string) (points []string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range bytes.Lines(mounts) {
		fields := bytes.Fields(line)
		if len(fields) > 1 && bytes.HasPrefix(fields[1], []byte(folder)) {
			points = append(points, string(fields[1]))
		}
	}
	return points
}

func unmountBelow(folder string) {
	for _, point := range slices.Backward(Mounts(folder)) {
		_ = unix.Unmount(point, unix.MNT_DETACH)
	}
}

// Mounts are those below containerd's folder.
func (c *Containerd) Mounts() []string { return Mounts(c.dir) }
