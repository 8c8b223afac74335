package network_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/network"
)

// patience bounds every wait; a pass takes far less.
const patience = 2 * time.Minute

// machine is a real containerd and a pod network of its own.
type machine struct {
	*critest.Containerd
	network.Options
	*network.Network
}

func newMachine(t *testing.T) machine {
	t.Helper()
	c := critest.Start(t)
	c.WithPlugins(t)
	bridge, cidr := critest.Bridge(t)
	r, err := podrange.Parse(cidr)
	require.NoError(t, err)
	o := network.Options{
		Place: network.Place{BinDir: c.CNIBinDir(), ConfDir: c.CNIConfDir(), LeaseDir: filepath.Join(t.TempDir(), "leases"), Bridge: bridge},
		Range: r, Address: "192.0.2.7", Runtime: c.Runtime, Clock: clock.RealClock{},
	}
	return machine{c, o, network.New(o)}
}

func (m machine) sandbox(t *testing.T, name string) (id, ip string) {
	t.Helper()
	id, err := m.Containerd.Runtime.RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}, "")
	require.NoError(t, err)
	answer, err := m.Containerd.Runtime.PodSandboxStatus(t.Context(), id, false)
	require.NoError(t, err)
	return id, answer.GetStatus().GetNetwork().GetIp()
}

func (m machine) leases(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.LeaseDir, network.Name))
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		if net.ParseIP(e.Name()) != nil {
			all = append(all, e.Name())
		}
	}
	return all
}

func TestSandboxesHaveAddressesOfTheRange(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	id, one := m.sandbox(t, "one")
	_, two := m.sandbox(t, "two")
	require.NotEqual(t, one, two)
	for _, ip := range []string{one, two} {
		require.True(t, m.Range.Prefix().Contains(netip.MustParseAddr(ip)), ip)
		require.NotEqual(t, m.Range.Gateway().String(), ip)
	}

	// Configured again: nothing changes, for the sandboxes neither.
	before, err := os.Stat(filepath.Join(m.ConfDir, "00-ainode.conflist"))
	require.NoError(t, err)
	require.NoError(t, m.Configure(t.Context()))
	after, err := os.Stat(filepath.Join(m.ConfDir, "00-ainode.conflist"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "what stands is not written again: the runtime would read it again")

	require.NoError(t, m.Containerd.Runtime.StopPodSandbox(t.Context(), id))
	require.Equal(t, []string{two}, m.leases(t), "an address is free when its sandbox has ended")
}

func TestWhatIsNobodysIsFreed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	_, lives := m.sandbox(t, "lives")
	gone := m.Range.Gateway().Next().Next().Next().String()
	require.NoError(t, os.WriteFile(filepath.Join(m.LeaseDir, network.Name, gone), []byte("0123456789abcdef\r\neth0"), 0o600))

	// As long as the call for a sandbox may take, and the runtime to end it, the
	// sandbox may be in the making: its pause image comes slowly, say.
	o, passing := m.Options, clocktesting.NewFakeClock(time.Now())
	o.Clock = passing
	n := network.New(o)
	for range 11 {
		require.NoError(t, n.Sweep(t.Context()))
		require.ElementsMatch(t, []string{lives, gone}, m.leases(t), "the sandbox may be in the making")
		passing.Step(time.Minute)
	}
	require.NoError(t, n.Sweep(t.Context()))
	require.Equal(t, []string{lives}, m.leases(t))
}

func TestWhatWasTakenAwayIsPutBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	conflist := filepath.Join(m.ConfDir, "00-ainode.conflist")
	require.NoError(t, os.Remove(conflist))
	require.NoError(t, exec.Command("ip", "link", "delete", m.Bridge).Run())
	require.NoError(t, m.Configure(t.Context()))
	require.FileExists(t, conflist)
	_, ip := m.sandbox(t, "after")
	require.True(t, m.Range.Prefix().Contains(netip.MustParseAddr(ip)))
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	id, _ := m.sandbox(t, "one")
	require.NoError(t, m.Containerd.Runtime.StopPodSandbox(t.Context(), id))
	require.NoError(t, m.Containerd.Runtime.RemovePodSandbox(t.Context(), id))
	_, err := m.Containerd.Runtime.RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{ // of an agent that was killed
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "ainode-network-trial", Namespace: "ainode-system", Uid: "ainode-network-trial"},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{},
	}, "")
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, m.Remove(t.Context(), m.Containerd.Runtime))
	}
	sandboxes, err := m.Containerd.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	require.Error(t, exec.Command("ip", "link", "show", m.Bridge).Run())
	require.NoDirExists(t, m.LeaseDir)
	entries, err := os.ReadDir(m.ConfDir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// An answer to a pod's address is one: from the machine itself, which routes there.
func TestAsk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	require.NoError(t, m.Configure(t.Context()))
	listener, err := net.Listen("tcp", net.JoinHostPort(m.Range.Gateway().String(), "0"))
	require.NoError(t, err)
	require.NoError(t, m.Ask(t.Context(), "https://"+listener.Addr().String()))
	require.NoError(t, listener.Close())
	require.NoError(t, m.Ask(t.Context(), "https://"+listener.Addr().String()), "a refusal is an answer")

	// An address of the range that nobody has: no answer comes.
	err = m.Ask(t.Context(), "https://"+m.Range.Gateway().Next().Next().Next().Next().String())
	require.ErrorIs(t, err, network.ErrNoAnswer)
	sandboxes, err := m.Containerd.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	require.Empty(t, m.leases(t))
}

func TestWhatIsMissingIsTold(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	tell := func(change func(*network.Options)) string {
		o := m.Options
		change(&o)
		n := network.New(o)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := n.Configure(ctx)
		require.Error(t, err)
		require.Equal(t, err.Error(), n.Trouble())
		return err.Error()
	}
	empty := t.TempDir()
	require.Contains(t, tell(func(o *network.Options) { o.BinDir = empty }), "the CNI plugins bridge, host-local, loopback are missing in "+empty)
	require.Contains(t, tell(func(o *network.Options) { o.ConfDir = empty }), "name the runtime's folder with --cni-conf-dir")
	others := filepath.Join(t.TempDir(), "plugins")
	require.NoError(t, os.CopyFS(others, os.DirFS(m.BinDir)))
	for _, plugin := range network.Plugins {
		require.NoError(t, os.Chmod(filepath.Join(others, plugin), 0o755))
	}
	require.Contains(t, tell(func(o *network.Options) { o.BinDir = others }), "name the runtime's folder with --cni-bin-dir")
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses { // one that a range could hold
		own, err := netip.ParsePrefix(address.String())
		require.NoError(t, err)
		if r, err := podrange.Parse(netip.PrefixFrom(own.Addr(), 24).Masked().String()); err == nil && r != m.Range {
			require.Contains(t, tell(func(o *network.Options) { o.Range = r }), "holds the address "+own.String()+" of this machine's interface")
		}
	}

	earlier := `{"cniVersion":"1.0.0","name":"another","plugins":[{"type":"loopback"}]}`
	require.NoError(t, os.WriteFile(filepath.Join(m.ConfDir, "00-a.conflist"), []byte(earlier), 0o600))
	require.Contains(t, tell(func(*network.Options) {}), `gives pods the network "another"`)
	require.NoError(t, os.Remove(filepath.Join(m.ConfDir, "00-a.conflist")))
	require.NoError(t, m.Configure(t.Context()))
	require.Empty(t, m.Trouble())
}
