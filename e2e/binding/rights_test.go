package binding

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/e2e/story"
)

// testRights gives a person who may do nothing what import's refusal says, by the very
// command that it prints. All that the suite types from then on is typed by them.
func (s *stage) testRights(t *testing.T) {
	told := s.refused(t, s.b, "import", s.b.name)
	require.Contains(t, told, "you ("+person+") may not import a cluster: 5 rights are missing; nothing was changed")
	for _, right := range []string{
		`on the target  get namespaces "kube-system"`, "on the hub     list clusterconfigs.ainode.dev", "on the hub     create clusterconfigs.ainode.dev",
		"on the hub     update clusterconfigs.ainode.dev\n", "on the hub     update clusterconfigs.ainode.dev/status",
	} {
		require.Contains(t, told, right)
	}
	_, command, found := strings.Cut(told, "kubectl create clusterrolebinding")
	require.True(t, found, told)
	command, _, _ = strings.Cut("kubectl create clusterrolebinding"+command, "\n")

	s.a.types(t, command)
	told = s.refused(t, s.b, "import", s.b.name)
	require.Contains(t, told, "one right is missing; nothing was changed\n  on the target  get namespaces \"kube-system\"\n")
	s.b.types(t, command)
}

// types has the cluster's administrator type a command.
func (p *plane) types(t *testing.T, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig(), "PATH="+p.Dir+"/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", command, out)
}

// testExtended moves the end of a binding whose pods are being sent away already: its
// pod, which a budget keeps, runs on. Looking and renewing are tried on the way.
func (s *stage) testExtended(t *testing.T) {
	m, at := s.one, s.b
	s.bind(t, m, at)
	stays, budget := at.keep(t, m)

	s.bind(t, m, at, "--until", "20m", "--drain-grace", "19m55s")
	s.awaitListed(t, m, string(v1alpha1.Draining))
	require.Contains(t, s.ainode(t, at, "bind", m.node, "--to", at.name, "--until", "8h"), "bound until ", "at once, and whatever speaks against a new binding")
	s.awaitListed(t, m, string(v1alpha1.Bound))
	require.Greater(t, time.Until(s.record(t, m).Spec.Until.Time), 7*time.Hour)
	at.awaitNode(t, m, "takes pods again", func(n *corev1.Node) bool {
		return ready(n) && !n.Status.Allocatable.Pods().IsZero() && !n.Spec.Unschedulable
	})
	at.requireSame(t, stays)

	require.Contains(t, s.ainode(t, at, "renew", m.node, "--timeout", patience.String()), "renewed")
	require.Contains(t, s.ainode(t, at, "describe", m.node), "free at ")
	s.ainode(t, at, "bind", m.node, "--to", at.name, "--until", "none")
	s.requireLooks(t, at)
	at.requireSame(t, stays)
	s.testHeldUp(t, stays, budget)
}

// requireLooks demands that doctor sees all there is, but for the trial's pod in
// namespace default, which the role does not create.
func (s *stage) requireLooks(t *testing.T, at *plane) {
	t.Helper()
	said := s.looked(t, at)
	require.Equal(t, 1, strings.Count(said, "can't be looked at"), said)
	require.Contains(t, said, "webhook-answers: can't be looked at")
}

// looked is what doctor says, of some nodes or all, in one line; that it has findings is
// no failure.
func (s *stage) looked(t *testing.T, at *plane, nodes ...string) string {
	t.Helper()
	out, err := s.try(t.Context(), at, append([]string{"doctor"}, nodes...)...)
	var failed *story.Failed
	if !errors.As(err, &failed) || failed.Code != 2 {
		require.NoError(t, err)
	}
	return strings.Join(strings.Fields(out), " ")
}
