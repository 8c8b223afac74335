package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

func TestAddressesOfAMachine(t *testing.T) {
	t.Parallel()
	var found []netip.Addr
	for _, text := range []string{"127.0.0.1", "::1", "fe80::1", "169.254.7.7", "fd00::5", "10.9.0.7", "224.0.0.1", "10.0.0.7", "10.0.0.2", "10.9.0.7"} {
		found = append(found, netip.MustParseAddr(text))
	}
	require.Equal(t, []string{"10.0.0.7", "10.0.0.2", "10.9.0.7", "fd00::5"}, reachable("10.0.0.7", found))
	require.Equal(t, []string{"192.0.2.1"}, reachable("192.0.2.1", nil), "its own is told though no interface has it: the machine may not be up yet")
	for i := range 300 {
		found = append(found, netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", i%256)))
	}
	require.Len(t, reachable("10.0.0.7", found), mostAddresses, "a status must not grow without bounds")

	has := &addresses{own: "192.0.2.1", look: look}
	has.refresh(t.Context())
	require.Equal(t, "192.0.2.1", has.reachable()[0])
	require.True(t, has.lacks("192.0.2.1"))
	for _, text := range has.reachable()[1:] {
		require.True(t, netip.MustParseAddr(text).IsGlobalUnicast(), text)
		require.False(t, has.lacks(text), text)
	}
	again := has.reachable()
	has.refresh(t.Context())
	require.Equal(t, again, has.reachable(), "the same again while the machine is")
}

// A pod's link that comes while the kernel lists its links cuts the list short.
// What IPv6 marks as temporary is of IPv4 the second address of a subnet, which lasts.
func TestAddressesThatPass(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("10.0.0.8"), netip.MustParseAddr("fd00::8")
	require.Equal(t, unix.IFA_F_SECONDARY, unix.IFA_F_TEMPORARY)
	require.False(t, passes(four, unix.IFA_F_SECONDARY|unix.IFA_F_PERMANENT))
	require.False(t, passes(six, unix.IFA_F_PERMANENT))
	require.True(t, passes(six, unix.IFA_F_TEMPORARY))
	require.True(t, passes(six, unix.IFA_F_TENTATIVE))
	require.True(t, passes(four, unix.IFA_F_DEPRECATED))
}

func TestAddressesWhilePodsComeAndGo(t *testing.T) {
	t.Parallel()
	own, other := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.9.0.7")
	interrupted, asked := 2, 0
	has := &addresses{own: own.String(), look: func() (found, error) {
		if asked++; asked <= interrupted {
			return found{all: []netip.Addr{own}, lasting: []netip.Addr{own}}, fmt.Errorf("list links: %w", netlink.ErrDumpInterrupted)
		}
		return found{all: []netip.Addr{own, other}, lasting: []netip.Addr{own, other}}, nil
	}}
	require.Equal(t, []string{"10.0.0.7"}, has.reachable())
	require.False(t, has.lacks("10.9.0.7"), "nothing is known yet")
	has.refresh(t.Context())
	require.Equal(t, []string{"10.0.0.7", "10.9.0.7"}, has.reachable(), "it was tried again")
	interrupted, asked = 1000, 0
	has.refresh(t.Context())
	require.Less(t, asked, 10, "not for ever")
	require.Equal(t, []string{"10.0.0.7", "10.9.0.7"}, has.reachable(), "the last answer stands")
	require.False(t, has.lacks("10.9.0.7"))
	require.True(t, has.lacks("10.9.0.8"))
	asked = -1
	for range 3 {
		has.reachable()
		has.lacks("10.9.0.7")
	}
	require.Equal(t, -1, asked, "whoever tells of them asks no kernel")
}

// The Node, and with it whoever asks for the node, has the address that was chosen.
func TestTheNodeIsAtTheChosenAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	cards, err := gpu.Open(gpu.Options{Simulate: "dgxh200", MachineID: "m", CDIDir: filepath.Join(dir, "cdi"), NvidiaSMI: smi})
	require.NoError(t, err)
	tn := &tenant{
		cfg: config.Run{StateDir: config.State(dir)}, node: "ai-1", address: "10.0.0.7", clock: clock.RealClock{},
		runtime: critest.StartAs(t, critest.Setup{CDI: true}).Runtime,
	}
	require.NoError(t, tn.followCards(cards))
	for chosen, want := range map[string]string{"": "10.0.0.7", "10.9.0.7": "10.9.0.7"} {
		facts, err := tn.nodeFacts(t.Context(), binding.Target{Node: "ai-1", Epoch: 1, Address: chosen})
		require.NoError(t, err)
		require.Equal(t, want, facts.Address)
	}
}
