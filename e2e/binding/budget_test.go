package binding

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// keep runs a pod on a machine's node that a disruption budget keeps.
func (p *plane) keep(t *testing.T, m machine) (kept corev1.Pod, budget *policyv1.PodDisruptionBudget) {
	t.Helper()
	const name = "kept"
	wanted := pod(name, m)
	wanted.Labels = map[string]string{"app": name}
	require.NoError(t, p.Create(t.Context(), wanted))
	kept = p.awaitRunning(t, name)
	budget = &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: wanted.Labels}},
	}
	require.NoError(t, p.Create(t.Context(), budget))
	return kept, budget
}

// testHeldUp unbinds a node whose pod a budget keeps. It says what holds it up and what
// would go past that, takes nothing away meanwhile, and ends by itself once the budget is
// gone; deleting pods rather than evicting them asks no budget.
func (s *stage) testHeldUp(t *testing.T, kept corev1.Pod, budget *policyv1.PodDisruptionBudget) {
	m, at := s.one, s.b
	told := s.refused(t, at, "unbind", m.node, "--timeout", "5s")
	for _, says := range []string{
		`pods/"kept"`, "Cannot evict pod as it would violate the pod's disruption budget.",
		"not gone yet: pod default/kept (The disruption budget kept ",
		"kubectl ainode unbind " + m.node + "\n", "kubectl ainode unbind " + m.node + " --disable-eviction\n",
	} {
		require.Contains(t, told, says)
	}
	s.awaitListed(t, m, "Draining")
	at.requireSame(t, kept)

	asked := make(chan struct{}, 100)
	kubeconfig := s.behind(t, &gate{hold: func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/eviction") {
			asked <- struct{}{}
		}
	}})
	ended := make(chan error, 1)
	go func() {
		args := []string{"unbind", m.node, "--timeout", patience.String()}
		_, err := s.a.Run(t.Context(), "kubectl-ainode", append(args, s.clusters(kubeconfig, at)...)...)
		ended <- err
	}()
	for range 2 { // the second time it has been refused once
		select {
		case <-asked:
		case err := <-ended:
			t.Fatalf("it ended, and the budget stands: %v", err)
		}
	}
	at.requireSame(t, kept)
	require.NoError(t, at.Delete(t.Context(), budget))
	require.NoError(t, <-ended)
	s.requireNothing(t, m, at)

	s.bind(t, m, at)
	_, budget = at.keep(t, m)
	require.Contains(t, s.ainode(t, at, "unbind", m.node, "--disable-eviction", "--timeout", patience.String()), "unbound")
	s.requireNothing(t, m, at)
	require.NoError(t, at.Delete(t.Context(), budget))
}
