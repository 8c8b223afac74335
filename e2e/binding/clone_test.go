package binding

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
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

// testSuccessor gives the name of a machine that is cut off from the hub alone, and serves
// its cluster, to another one. That one gets nothing before the binding was ended by force;
// the first stops its pods when it hears of that, and leaves the record to the other.
func (s *stage) testSuccessor(t *testing.T) {
	first, second, at := s.two, s.clone, s.b
	stays := at.awaitRunning(t, "stays")
	epoch := s.record(t, first).Spec.BindEpoch
	key, running := s.record(t, first).Status.PublicKey, s.running(t, first)
	s.cut(t, first, s.a)
	s.shortenLease(t, first)
	s.awaitListed(t, first, "Lost")

	s.on(t, second, "rm", "-r", stateDir)
	s.join(t, second)
	t.Cleanup(func() { s.killAgent(t, second) })
	eventually(t, "it complains", func() error {
		record := s.record(t, second)
		c := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionConflict)
		if c == nil || !strings.Contains(c.Message, "unbind "+second.node+" --force") {
			return fmt.Errorf("it says %+v", c)
		}
		return nil
	})
	require.Contains(t, s.refused(t, at, "bind", second.node, "--to", at.name), "Another machine has joined under its name")
	require.Contains(t, s.refused(t, at, "renew", second.node), "is lost")
	require.Contains(t, s.refused(t, at, "unbind", second.node), "is lost")
	require.Equal(t, key, s.record(t, second).Status.PublicKey)
	at.requireSame(t, stays)
	require.Empty(t, s.running(t, second), "no pod runs on both")

	s.ainode(t, at, "unbind", second.node, "--force")
	eventually(t, "the name is the other's", func() error {
		if s.record(t, second).Status.PublicKey == key {
			return errors.New("the record has the first machine's key")
		}
		return nil
	})
	s.bind(t, second, at)
	s.requireBound(t, second, at, epoch+1)
	fresh := at.run(t, "fresh", second)
	require.Contains(t, s.running(t, second), container(fresh))
	for _, id := range s.running(t, first) { // what the target has deleted it may have stopped
		require.Contains(t, running, id, "the first, whose watch of the target's pods may be open, begins none of the other's")
	}

	s.heal(t, first, s.a)
	eventually(t, "the first machine has stopped its pods", func() error {
		if left := s.running(t, first); len(left) > 0 {
			return fmt.Errorf("%v run", left)
		}
		return nil
	})
	at.requireSame(t, fresh)
	s.requireBound(t, second, at, epoch+1)
	require.NotEqual(t, key, s.record(t, second).Status.PublicKey)
	s.unbind(t, second, at)
	s.requireNothing(t, second, at)
}
