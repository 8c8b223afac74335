package remains

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

func epoch(n int64) map[string]string {
	return map[string]string{contract.BindEpochAnnotation: strconv.FormatInt(n, 10)}
}

func role(name string, n int64) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Annotations: epoch(n)}}
}

func aNode(annotations map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ai-1", UID: "uid-node", Annotations: annotations}}
}

func names(things []Thing) []string {
	var out []string
	for _, t := range things {
		out = append(out, t.Kind+" "+t.GetName())
	}
	return out
}

func seen() Seen {
	return Seen{
		Node: aNode(epoch(2)),
		Pods: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "log-agent", UID: "uid-pod"}}},
		Requests: []certificatesv1.CertificateSigningRequest{
			{ObjectMeta: metav1.ObjectMeta{Name: "csr-1", UID: "uid-csr"}, Spec: certificatesv1.CertificateSigningRequestSpec{Username: "system:node:ai-1", SignerName: certificatesv1.KubeletServingSignerName}},
			{ObjectMeta: metav1.ObjectMeta{Name: "csr-2"}, Spec: certificatesv1.CertificateSigningRequestSpec{Username: "system:node:ai-10", SignerName: certificatesv1.KubeletServingSignerName}},
			{ObjectMeta: metav1.ObjectMeta{Name: "csr-3"}, Spec: certificatesv1.CertificateSigningRequestSpec{Username: "system:node:ai-1", SignerName: "example.com/other"}},
		},
		Identities: []rbacv1.ClusterRole{
			{ObjectMeta: metav1.ObjectMeta{Name: identity.HubRole("ai-1")}}, // the agent's own account, on a hub
			role("somebody-elses", 1), role(identity.Target("ai-1", 1), 1), role(identity.Target("ai-1", 2), 2),
		},
	}
}

// What is over goes in an order in which a crash leaves nothing that nobody finds.
func TestEverythingOfAnEpochThatIsOver(t *testing.T) {
	t.Parallel()
	r := Of("ai-1", 2, seen())
	require.Zero(t, r.Newer)
	require.False(t, r.Foreign)
	require.Equal(t, []string{
		"ServiceAccount ainode-ai-1-1", "ClusterRoleBinding ainode-ai-1-1", "RoleBinding ainode-ai-1-1", "Role ainode-ai-1-1", "ClusterRole ainode-ai-1-1",
		"ServiceAccount ainode-ai-1-2", "ClusterRoleBinding ainode-ai-1-2", "RoleBinding ainode-ai-1-2", "Role ainode-ai-1-2", "ClusterRole ainode-ai-1-2",
		"CertificateSigningRequest csr-1", "Node ai-1", "Lease ai-1", "Pod log-agent",
	}, names(r.InOrder()))
	for _, thing := range []Thing{r.Identities[4], r.Requests[0], r.Node[0], r.Pods[0]} {
		require.Equal(t, thing.GetUID(), *thing.Options.Preconditions.UID, "no other %s of that name goes", thing.Kind)
	}
	require.Zero(t, *r.Pods[0].Options.GracePeriodSeconds, "nobody is there to end it")
	require.Nil(t, r.Node[0].Options.GracePeriodSeconds)
}

// A node that is bound again keeps everything but what is dead of earlier epochs.
func TestABindingThatBeganMeanwhile(t *testing.T) {
	t.Parallel()
	r := Of("ai-1", 1, seen())
	require.EqualValues(t, 2, r.Newer)
	require.Equal(t, []string{
		"ServiceAccount ainode-ai-1-1", "ClusterRoleBinding ainode-ai-1-1", "RoleBinding ainode-ai-1-1", "Role ainode-ai-1-1", "ClusterRole ainode-ai-1-1",
	}, names(r.InOrder()))

	s := seen()
	s.Identities = append(s.Identities, role(identity.Target("ai-1", 3), 3)) // and its Node does not stand yet
	r = Of("ai-1", 2, s)
	require.EqualValues(t, 3, r.Newer)
	require.Empty(t, append(r.Node, r.Pods...))
}

func TestANodeThatNoBindingMade(t *testing.T) {
	t.Parallel()
	s := seen()
	s.Node = aNode(nil)
	r := Of("ai-1", 2, s)
	require.True(t, r.Foreign)
	require.Empty(t, append(r.Node, r.Pods...), "it and its pods are somebody else's")
	require.Len(t, r.Identities, 10)

	s.Node = nil
	require.Equal(t, []string{"Lease ai-1"}, names(Of("ai-1", 2, s).Node), "a heartbeat may outlive its Node")
}
