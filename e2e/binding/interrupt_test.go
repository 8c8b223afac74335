package binding

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// testInterruptions kills bind and unbind with each of their writes, on a target that
// is not the hub: unbind takes back what a killed bind has done, the same command
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
