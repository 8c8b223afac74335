package binding

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/v1alpha1"
)

// testKilledAgent kills a machine's agent while it takes a binding and while it gives one
// back. Each moment is held still: what the agent waits for is kept from it.
func (s *stage) testKilledAgent(t *testing.T) {
	m, at := s.one, s.b
	epoch := s.record(t, m).Spec.BindEpoch + 1

	// It has read the sealed credential, and waits for the target to exchange it.
	s.cut(t, m, at)
	s.ainode(t, at, "bind", m.node, "--to", at.name, "--wait=false")
	s.awaitDial(t, m, at)
	s.killAgent(t, m)
	require.Equal(t, v1alpha1.Binding, s.record(t, m).Status.BindStatus)
	s.on(t, m, "test", "!", "-e", stateDir+"/target")
	s.heal(t, m, at)
	s.startAgent(t, m)
	s.bind(t, m, at)
	s.requireBound(t, m, at, epoch)

	// A pod takes its time to end, with its binding.
	slow := pod("slow", m)
	slow.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) // longer than it takes to see it begin and kill the agent
	slow.Spec.Containers[0].Command[2] = "trap '' TERM; while true; do sleep 1; done"
	require.NoError(t, at.Create(t.Context(), slow))
	at.awaitRunning(t, "slow")
	running, released := s.running(t, m), s.released(t, m)
	s.release(t, m)
	s.awaitReleasing(t, m, released+1)
	s.killAgent(t, m)
	require.Equal(t, running, s.running(t, m), "it was killed before the pod has ended")
	s.on(t, m, "test", "-e", stateDir+"/target")

	// It has stopped everything and wiped the credential, and can't tell the hub.
	s.startAgent(t, m)
	s.awaitReleasing(t, m, released+2)
	s.cut(t, m, s.a)
	eventually(t, "the credential is wiped", func() error {
		_, err := s.a.devcluster(t.Context(), "exec", m.Name, "--", "test", "!", "-e", stateDir+"/target")
		return err
	})
	s.killAgent(t, m)
	require.Empty(t, s.running(t, m))
	require.Equal(t, v1alpha1.Unbinding, s.record(t, m).Status.BindStatus)
	s.heal(t, m, s.a)
	s.startAgent(t, m)
	require.Contains(t, s.ainode(t, at, "unbind", m.node, "--timeout", patience.String()), "unbound")
	s.requireNothing(t, m, at)
}

// awaitDial waits until somebody on a machine waits for a cluster to take a connection.
func (s *stage) awaitDial(t *testing.T, m machine, to *plane) {
	t.Helper()
	const synSent = "02"
	ip := netip.MustParseAddr(to.Cluster().Node.Address).As4()
	remote := fmt.Sprintf("%02X%02X%02X%02X:", ip[3], ip[2], ip[1], ip[0]) // as /proc has it
	eventually(t, "a call to "+to.name, func() error {
		table := s.on(t, m, "cat", "/proc/net/tcp")
		for line := range strings.Lines(table) {
			if fields := strings.Fields(line); strings.HasPrefix(fields[2], remote) && fields[3] == synSent {
				return nil
			}
		}
		return errors.New(table)
	})
}

// release writes into a record what unbind does once the pods are gone; here they are not.
func (s *stage) release(t *testing.T, m machine) {
	t.Helper()
	eventually(t, "the record is written", func() error {
		record := s.record(t, m)
		record.Spec = v1alpha1.AINodeSpec{BindEpoch: record.Spec.BindEpoch}
		return s.a.Update(t.Context(), record)
	})
}

// awaitReleasing waits until an agent has begun to give everything back for the n-th time.
func (s *stage) awaitReleasing(t *testing.T, m machine, n int) {
	t.Helper()
	eventually(t, "the machine gives everything back", func() error {
		if now := s.released(t, m); now < n {
			return fmt.Errorf("it has begun %d times", now)
		}
		return nil
	})
}
