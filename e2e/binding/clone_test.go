package binding

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
)

// testClone starts a copy of a machine's disk beside it: the copy complains, and
// touches nothing.
func (s *stage) testClone(t *testing.T) {
	m, copied, at := s.two, s.clone, s.b
	s.bind(t, m, at)
	stays := at.run(t, "stays", m)
	devcluster := s.program("devcluster") + " exec --dir " + s.a.Dir
	out, err := exec.CommandContext(t.Context(), "sh", "-c",
		devcluster+" "+m.Name+" -- tar -C /var/lib -cf - ainode-agent | "+devcluster+" "+copied.Name+" -- tar -C /var/lib -xf -").CombinedOutput()
	require.NoError(t, err, string(out))
	// Both machines are this one: what tells two apart that run at once is their boot.
	s.on(t, copied, "sh", "-c", "cat /proc/sys/kernel/random/uuid >/var/lib/boot && mount --bind /var/lib/boot /proc/sys/kernel/random/boot_id")
	s.startAgent(t, copied)
	t.Cleanup(func() { s.killAgent(t, copied) })
	message := s.awaitCondition(t, m, v1alpha1.ConditionConflict, metav1.ConditionTrue, "AnotherMachine")
	require.Contains(t, message, "it starts nothing")

	// The node is the first machine's, which goes on as before.
	more := at.run(t, "more", m)
	require.Empty(t, s.running(t, copied), "no pod runs on both")
	at.requireSame(t, stays)
	var node corev1.Node
	require.NoError(t, at.Get(t.Context(), client.ObjectKey{Name: m.node}, &node))
	require.Equal(t, m.Address, node.Status.Addresses[0].Address)
	require.Equal(t, m.Address, s.record(t, m).Status.Address)
	require.NoError(t, at.Delete(t.Context(), &more))
	at.awaitGone(t, more.Name)
	require.Empty(t, s.running(t, copied))
	s.requireBound(t, m, at, s.record(t, m).Spec.BindEpoch)
}

// testDeletedNode deletes the Node while it is bound. The record is the truth: the
// agent registers it again at once, before anybody takes its pods for orphans. (A
// kubelet registers when it starts and not again; its pods are collected after 40 s.)
func (s *stage) testDeletedNode(t *testing.T) {
	m, at := s.two, s.b
	stays := at.awaitRunning(t, "stays")
	var before corev1.Node
	require.NoError(t, at.Get(t.Context(), client.ObjectKey{Name: m.node}, &before))
	require.NoError(t, at.Delete(t.Context(), &before))
	after := at.awaitNode(t, m, "is registered again", func(n *corev1.Node) bool { return n.UID != before.UID && ready(n) })
	require.Equal(t, contract.NodeLabelValue, after.Labels[contract.NodeLabel])
	require.Contains(t, after.Spec.Taints, contract.Taint())
	at.requireSame(t, stays)
	more := at.run(t, "more", m)
	require.NoError(t, at.Delete(t.Context(), &more))
	at.awaitGone(t, more.Name)
	s.requireBound(t, m, at, s.record(t, m).Spec.BindEpoch)
}
