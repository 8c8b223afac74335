package network

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// What containerd does when a sandbox begins and ends, with the first `ip netns add` of a
// boot in between, where no namespace is mounted yet.
func TestTheFirstNamedNamespace(t *testing.T) {
	t.Parallel()
	for name, guarded := range map[string]bool{"nobody guards": false, "guarded": true, "guarded twice": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apart(t, func() {
				if guarded {
					require.NoError(t, guardNamespaces(Namespaces))
				}
				if name == "guarded twice" {
					require.NoError(t, guardNamespaces(Namespaces))
				}
				pod := filepath.Join(Namespaces, "cni-pod")
				require.NoError(t, os.MkdirAll(Namespaces, 0o755))
				require.NoError(t, os.WriteFile(pod, nil, 0o600))
				require.NoError(t, unix.Mount("/proc/thread-self/ns/net", pod, "", unix.MS_BIND, ""))
				out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", "somebody").CombinedOutput()
				require.NoError(t, err, "%s", out)

				covered, err := Covered(Namespaces)
				require.NoError(t, err)
				require.NoError(t, unix.Unmount(pod, unix.MNT_DETACH))
				err = os.Remove(pod)
				if guarded {
					require.Empty(t, covered)
					require.NoError(t, err)
					return
				}
				require.Equal(t, []string{"cni-pod"}, covered)
				require.ErrorIs(t, err, syscall.EBUSY, "what is guarded against happens no more: the guard can go")
				require.NoError(t, guardNamespaces(Namespaces), "too late, and nothing is made worse")
				still, err := Covered(Namespaces)
				require.NoError(t, err)
				require.Equal(t, covered, still)

				// What doctor says.
				require.NoError(t, exec.CommandContext(t.Context(), "umount", "-R", "-l", Namespaces).Run())
				require.NoError(t, unix.Unmount(pod, unix.MNT_DETACH))
				require.NoError(t, os.Remove(pod))
			})
		})
	}
}

// Where there are sandboxes already, the guard would itself cover them.
func TestNamespacesAreNotCovered(t *testing.T) {
	t.Parallel()
	apart(t, func() {
		require.NoError(t, os.Mkdir(Namespaces, 0o755))
		pod := filepath.Join(Namespaces, "cni-pod")
		require.NoError(t, os.WriteFile(pod, nil, 0o600))
		require.NoError(t, unix.Mount("/proc/thread-self/ns/net", pod, "", unix.MS_BIND, ""))
		require.NoError(t, guardNamespaces(Namespaces))
		require.NoError(t, unix.Unmount(pod, unix.MNT_DETACH))
		require.NoError(t, os.Remove(pod))
	})
}

// apart calls do on a thread that has the mounts to itself, and none in /run, and waits.
func apart(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done) // also where require ends the goroutine
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		require.NoError(t, unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS))
		require.NoError(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		for { // what the machine has there, upper mounts first
			own, others, err := mountsIn("/run")
			require.NoError(t, err)
			if own != nil {
				others = append([]mount.MountInfo{*own}, others...)
			}
			if len(others) == 0 {
				break
			}
			for _, m := range slices.Backward(others) {
				_ = unix.Unmount(m.MountPoint, unix.MNT_DETACH) // one that is covered comes next time
			}
		}
		require.NoError(t, unix.Mount("none", "/run", "tmpfs", 0, ""))
		do()
	}()
	<-done
}
