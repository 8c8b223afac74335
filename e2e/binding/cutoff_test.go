package binding

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// iptables changes a machine's rules so that it and these clusters are silent to each
// other (-I), or are not any more (-D).
func (s *stage) iptables(t *testing.T, how string, m machine, from ...*plane) {
	t.Helper()
	for _, p := range from {
		address := p.Cluster().Node.Address
		s.on(t, m, "iptables", "-w", how, "INPUT", "-s", address, "-j", "DROP")
		s.on(t, m, "iptables", "-w", how, "OUTPUT", "-d", address, "-j", "DROP")
	}
}

func (s *stage) cut(t *testing.T, m machine, from ...*plane) {
	t.Helper()
	s.iptables(t, "-I", m, from...)
}

func (s *stage) heal(t *testing.T, m machine, from ...*plane) {
	t.Helper()
	s.iptables(t, "-D", m, from...)
}

func unseen(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown
	})
}

// testCutOff cuts a machine off from its target, from both, from the hub: always for
// longer than a Lease lives. Its pods run on, and all is told right when it is back.
func (s *stage) testCutOff(t *testing.T) {
	m, at := s.two, s.b
	stays := at.awaitRunning(t, "stays")
	running := s.running(t, m)
	released := s.released(t, m)

	s.cut(t, m, s.b)
	at.awaitNode(t, m, "is not seen by its cluster", unseen)
	require.Equal(t, running, s.running(t, m), "cut off from the target")
	s.awaitListed(t, m, "Bound")
	s.cut(t, m, s.a)
	s.awaitListed(t, m, "Lost")
	require.Equal(t, running, s.running(t, m), "cut off from both")

	s.heal(t, m, s.b)
	at.awaitNode(t, m, "is Ready again", ready)
	at.requireSame(t, stays)
	late := at.run(t, "late", m)
	s.awaitListed(t, m, "Lost")
	require.Len(t, s.running(t, m), len(running)+2, "cut off from the hub a machine serves its cluster")
	s.heal(t, m, s.a)
	s.awaitListed(t, m, "Bound")
	s.requireBound(t, m, at, 1)
	at.requireSame(t, stays)
	at.requireSame(t, late)
	require.Equal(t, released, s.released(t, m), "nothing was given back")
}

// testForced ends the binding of a machine that is cut off, and is killed with each write
// of that. The machine keeps its pods until it reads the hub again; then it stops them and
// says why.
func (s *stage) testForced(t *testing.T) {
	m, at := s.two, s.b
	running := s.running(t, m)
	require.NotEmpty(t, running)
	released := s.released(t, m)
	require.Contains(t, s.refused(t, at, "unbind", m.node, "--force"), "is alive: --force is for machines that are gone")
	s.cut(t, m, s.a, s.b)
	s.shortenLease(t, m)
	s.awaitListed(t, m, "Lost")
	require.Contains(t, s.refused(t, at, "unbind", m.node), "is lost")
	outOfService := false
	s.killEach(t, at, func() { outOfService = s.outOfService(t, m, at) || outOfService }, "unbind", m.node, "--force")
	require.True(t, outOfService, "its Node was never seen as out of service")
	require.Contains(t, s.ainode(t, at, "unbind", m.node, "--force"), "unchanged")
	require.True(t, apierrors.IsNotFound(at.Get(t.Context(), client.ObjectKey{Name: m.node}, &corev1.Node{})))
	require.Empty(t, at.podsOf(t, m.node))
	require.Equal(t, running, s.running(t, m), "nobody has told the machine")
	s.awaitCondition(t, m, v1alpha1.ConditionForced, metav1.ConditionTrue, v1alpha1.ReasonUnboundByForce)
	s.awaitListed(t, m, "Forced")

	s.heal(t, m, s.b) // 401 there: that alone stops nothing
	s.heal(t, m, s.a)
	eventually(t, "the machine gives everything back", func() error {
		if left := s.running(t, m); len(left) > 0 {
			return fmt.Errorf("%v run", left)
		}
		if _, err := s.a.devcluster(t.Context(), "exec", m.Name, "--", "test", "!", "-e", stateDir+"/target"); err != nil {
			return errors.New("it has its credential")
		}
		return nil
	})
	require.Greater(t, s.released(t, m), released, "it says why")
	message := s.awaitCondition(t, m, v1alpha1.ConditionForced, metav1.ConditionFalse, v1alpha1.ReasonStopped)
	require.Contains(t, s.ainode(t, at, "describe", m.node), message)
	require.Contains(t, s.looked(t, at, m.node), message)
	s.requireNothing(t, m, at)

	s.bind(t, m, at)
	s.requireBound(t, m, at, 2)
	require.NotContains(t, s.ainode(t, at, "describe", m.node), v1alpha1.ConditionForced)
	at.run(t, "stays", m)
}

// shortenLease lets a silent machine be lost at once, and each command that forces it
// watch it for a second: neither is what is proved here. Its agent puts that right as soon
// as it renews the Lease.
func (s *stage) shortenLease(t *testing.T, m machine) {
	t.Helper()
	lease := coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: identity.HubLease(m.node), Namespace: contract.SystemNamespace}}
	require.NoError(t, s.a.Patch(t.Context(), &lease, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"leaseDurationSeconds":2}}`))))
}

// outOfService reports whether a Node stands that Kubernetes knows to be out of service.
// Before it says so nobody may act for the node any more, and while pods are on it no
// others come.
func (s *stage) outOfService(t *testing.T, m machine, at *plane) bool {
	t.Helper()
	var node corev1.Node
	err := at.Get(t.Context(), client.ObjectKey{Name: m.node}, &node)
	if apierrors.IsNotFound(err) {
		require.Empty(t, at.podsOf(t, m.node), "a pod outlived its Node")
		return false
	}
	require.NoError(t, err)
	taint := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}
	is := slices.ContainsFunc(node.Spec.Taints, func(is corev1.Taint) bool { return is.MatchTaint(&taint) && is.Value == taint.Value })
	if !is {
		require.NotEmpty(t, at.podsOf(t, m.node), "a pod is released and its Node not known to be out of service")
		return false
	}
	require.True(t, node.Spec.Unschedulable)
	require.Contains(t, node.Spec.Taints, contract.Taint())
	for name, kinds := range at.identities(t, m.node) {
		require.NotContains(t, kinds, "ClusterRole", "%s may still act", name)
	}
	return true
}
