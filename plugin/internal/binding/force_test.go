package binding

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	crfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/output"
)

// A lost node's pods are released only after the node is cordoned and known to be out
// of service: by then its identity is dead, and volumes are detached at once.
func TestForceTaintsBeforeItReleases(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AINode{
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1"}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: 4},
		Status: v1alpha1.AINodeStatus{BindStatus: v1alpha1.Bound, ObservedEpoch: 4},
	}
	config := &v1alpha1.ClusterConfig{ObjectMeta: metav1.ObjectMeta{Name: "prod"}, Status: v1alpha1.ClusterConfigStatus{BoundNodes: []string{"ai-1"}}}
	records := crfake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(record, config).
		WithStatusSubresource(record, config).Build()
	epoch := map[string]string{contract.BindEpochAnnotation: "4"}
	target := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ai-1", UID: "n", Annotations: epoch}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{contract.Taint()}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "db-0", UID: "p"}, Spec: corev1.PodSpec{NodeName: "ai-1"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: contract.SystemNamespace, Name: "ainode-ai-1-4"}},
	)
	broken := true
	target.PrependReactor("delete", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		if broken {
			return true, nil, errors.New("the API server went away")
		}
		return false, nil, nil
	})
	w := &Walk{
		Hub: &kube.Cluster{Records: records, Core: fake.NewClientset()}, Target: &kube.Cluster{Core: target},
		Progress: output.NewProgress(io.Discard), Clock: clock.RealClock{},
	}
	l := &Leaving{Node: "ai-1", Config: "prod", record: record, config: config, epoch: 4}
	require.ErrorContains(t, w.force(t.Context(), l, func(string) {}), `delete Pod "db-0" on the target: the API server went away`)
	node, err := target.CoreV1().Nodes().Get(t.Context(), "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	require.True(t, node.Spec.Unschedulable)
	require.Equal(t, []corev1.Taint{contract.Taint(), {Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}}, node.Spec.Taints)

	broken = false
	require.NoError(t, w.force(t.Context(), l, func(string) {}), "typed again it goes on")
	pods, err := target.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, pods.Items)
	nodes, err := target.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, nodes.Items)
}
