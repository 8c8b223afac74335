package binding

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/identity"
)

// testInterruptions kills bind, unbind and renew with each of their writes, on a target
// that is not the hub: unbind takes back what a killed bind has done, the same command
// finishes what it began, in one epoch.
func (s *stage) testInterruptions(t *testing.T) {
	m, to := s.one, s.b
	bind := []string{"bind", m.node, "--to", to.name, "--timeout", patience.String()}
	unbind := []string{"unbind", m.node, "--timeout", patience.String()}
	atEach(t, "bind", func(t *testing.T, n int) (bool, []string) {
		reached, writes := s.kill(t, n, to, bind...)
		s.unbind(t, m, to)
		s.requireNothing(t, m, to)
		if !reached {
			return false, writes
		}
		epoch := s.record(t, m).Spec.BindEpoch + 1
		reached, _ = s.kill(t, n, to, bind...)
		require.True(t, reached, "the same command writes the same")
		s.bind(t, m, to)
		s.requireBound(t, m, to, epoch)
		require.Contains(t, s.ainode(t, to, bind...), "unchanged")
		s.unbind(t, m, to)
		return true, writes
	})
	atEach(t, "unbind", func(t *testing.T, n int) (bool, []string) {
		s.bind(t, m, to)
		to.run(t, "leaves", m)
		reached, writes := s.kill(t, n, to, unbind...)
		require.Contains(t, s.ainode(t, to, unbind...), m.node)
		s.requireNothing(t, m, to)
		return reached, writes
	})
	s.bind(t, m, to)
	s.killRenewals(t, m, to)
	s.unbind(t, m, to)
	s.requireNothing(t, m, to)
}

// killRenewals kills renew with each of its writes. The same command ends it, in the epoch
// that it has begun; a pod runs through all of it.
func (s *stage) killRenewals(t *testing.T, m machine, at *plane) {
	t.Helper()
	stays := at.run(t, "renewed", m)
	renew := []string{"renew", m.node, "--timeout", patience.String()}
	atEach(t, "renew", func(t *testing.T, n int) (bool, []string) {
		before := s.record(t, m).Spec.BindEpoch
		reached, writes := s.kill(t, n, at, renew...)
		epoch := before + 1
		if !slices.Contains(at.identities(t, m.node)[identity.Target(m.node, before)], "ClusterRole") {
			epoch++ // nothing was left to be done of that one
		}
		require.Contains(t, s.ainode(t, at, renew...), fmt.Sprintf("renewed (epoch %d", epoch))
		s.requireBound(t, m, at, epoch)
		at.requireSame(t, stays)
		return reached, writes
	})
}

// killEach kills a command with the first of its writes, again and again, until it finds
// nothing left to be written: each time it has to go on where it was killed. after is
// called each time.
func (s *stage) killEach(t *testing.T, target *plane, after func(), args ...string) {
	t.Helper()
	for n := 1; n < 50; n++ {
		reached, writes := s.kill(t, 1, target, args...)
		if !reached {
			require.Greater(t, n-1, 5, "this test does not see the command's writes")
			return
		}
		t.Logf("%s killed with write %d: %s", args[0], n, writes[0])
		after()
	}
	t.Fatalf("%s does not get on", strings.Join(args, " "))
}

// atEach does something for each write of a command, until there is no n-th.
func atEach(t *testing.T, command string, do func(t *testing.T, n int) (reached bool, writes []string)) {
	t.Helper()
	for n := 1; ; n++ {
		reached, writes := do(t, n)
		if !reached {
			t.Logf("%s was killed with each of its %d writes", command, n-1)
			require.Greater(t, n-1, 8, "this test does not see the command's writes")
			return
		}
		t.Logf("%s killed with write %d: %s", command, n, writes[n-1])
	}
}
