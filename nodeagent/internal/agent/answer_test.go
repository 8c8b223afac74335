package agent

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/network"
)

// What the target has answered once it is asked again when the pods' way was mended.
func TestTheTargetIsAskedAgainAfterAMend(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Minute
	c := critest.Start(t)
	c.WithPlugins(t)
	bridge, cidr := critest.Bridge(t)
	r, err := podrange.Parse(cidr)
	require.NoError(t, err)
	p := podNetwork{network.New(network.Options{
		Place: network.Place{BinDir: c.CNIBinDir(), ConfDir: c.CNIConfDir(), LeaseDir: filepath.Join(t.TempDir(), "leases"), Bridge: bridge},
		Range: r, Address: "192.0.2.7", Runtime: c.Runtime, Clock: clock.RealClock{},
	})}
	require.NoError(t, p.configure(t.Context()))
	listener, err := net.Listen("tcp", net.JoinHostPort(r.Gateway().String(), "0"))
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	world, told, ended := &tenant{clock: clock.RealClock{}}, make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- world.askUntilAnswered(ctx, p, "https://"+listener.Addr().String(), func() { told <- struct{}{} })
	}()
	requireTold := func(what string) {
		t.Helper()
		select {
		case <-told:
			require.Empty(t, world.PodsAnswered().Trouble)
		case <-time.After(patience):
			t.Fatal(what)
		}
	}
	requireTold("the target was not asked")
	require.NoError(t, p.configure(t.Context()))
	require.NoError(t, exec.Command("ip", "link", "delete", bridge).Run())
	require.NoError(t, p.configure(t.Context()))
	requireTold("the target was not asked again")
	cancel()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	require.Empty(t, told, "it was asked once after each")
}
