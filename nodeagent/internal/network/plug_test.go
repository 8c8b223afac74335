package network_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/network"
)

// requireReached asks a port of a sandbox that nobody listens at: a refusal has come
// from there.
func requireReached(t *testing.T, ip string) {
	t.Helper()
	_, err := net.DialTimeout("tcp4", net.JoinHostPort(ip, "1"), patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// requireRepaired says whether a mend was told since it was asked last.
func requireRepaired(t *testing.T, n *network.Network, want bool) {
	t.Helper()
	select {
	case <-n.Repaired():
		require.True(t, want, "nothing was mended")
	default:
		require.False(t, want, "nobody was told")
	}
}

func (m machine) deleteBridge(t *testing.T) {
	t.Helper()
	out, err := exec.Command("ip", "link", "delete", m.Bridge).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestPodsThatRunArePluggedInAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	_, one := m.sandbox(t, "one")
	_, two := m.sandbox(t, "two")
	require.NoError(t, m.Configure(t.Context()))
	select {
	case <-m.Repaired(): // a kernel that forwarded nothing
	default:
	}

	before, err := net.InterfaceByName(m.Bridge)
	require.NoError(t, err)
	m.deleteBridge(t)
	require.NoError(t, m.Configure(t.Context()))
	after, err := net.InterfaceByName(m.Bridge)
	require.NoError(t, err)
	require.Equal(t, before.HardwareAddr, after.HardwareAddr, "pods know their gateway by it")
	requireReached(t, one)
	requireReached(t, two)
	requireRepaired(t, m.Network, true)
	require.NoError(t, m.Configure(t.Context()))
	requireRepaired(t, m.Network, false)

	// The bridge plugin was faster, for the next pod.
	m.deleteBridge(t)
	_, three := m.sandbox(t, "three")
	require.NoError(t, m.Configure(t.Context()))
	for _, ip := range []string{one, two, three} {
		requireReached(t, ip)
	}
	requireRepaired(t, m.Network, true)

	// While no agent ran.
	m.deleteBridge(t)
	next := network.New(m.Options)
	require.NoError(t, next.Configure(t.Context()))
	requireReached(t, one)
	requireRepaired(t, next, true)

	// Its sandbox is shown later than the bridge was made.
	path := filepath.Join(m.LeaseDir, network.Name, one)
	lease, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("0123456789abcdef\r\neth0"), 0o600))
	m.deleteBridge(t)
	require.NoError(t, next.Configure(t.Context()))
	require.NoError(t, os.WriteFile(path, lease, 0o600))
	require.NoError(t, next.Configure(t.Context()))
	requireReached(t, one)
}

// What runs on the machine besides pods keeps its interfaces as they are, though it
// has the number of a process that was a sandbox's or a lease's name.
func TestStrangersArePluggedInNowhere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	_, one := m.sandbox(t, "one")
	require.NoError(t, os.Rename(filepath.Join(m.LeaseDir, network.Name, one),
		filepath.Join(m.LeaseDir, network.Name, m.Range.Gateway().Next().Next().Next().Next().String())))
	m.deleteBridge(t)
	require.NoError(t, m.Configure(t.Context()))
	out, err := exec.Command("ip", "-oneline", "link", "show", "master", m.Bridge).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out), "its address is not the one that was taken")
}

// ip_forward is each network namespace's own: the test has one, in which nobody else's
// packets are dropped.
func TestTheKernelForwards(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			const path = "/proc/sys/net/ipv4/ip_forward"
			for range 2 {
				if err := os.WriteFile(path, []byte("0"), 0); err != nil {
					return err
				}
				if err := m.Configure(t.Context()); err != nil {
					return err
				}
				if now, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(now)) != "1" {
					return fmt.Errorf("ip_forward is %q: %w", now, err)
				}
				select {
				case <-m.Repaired():
				default:
					return errors.New("nobody was told")
				}
			}
			return nil
		}()
	}()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("the network is not configured")
	}
}
