package nodestatus

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ainode/ainode/api/contract"
)

func TestACardThatFailsLeavesTheNode(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	r.Facts.GPULabels = map[string]string{"nvidia.com/gpu.count": "8", "nvidia.com/gpu.family": "hopper"}
	gpus := &GPUs{
		Total: 8, Usable: 8, Status: corev1.ConditionTrue, Reason: "GPUsUsable", Labels: r.Facts.GPULabels,
		Prefixes: []string{"nvidia.com/gpu.c", "nvidia.com/gpu.f"},
	}
	r.Probe = func(context.Context) Health { return Health{GPUs: gpus} }
	require.NoError(t, r.Register(ctx))
	client.ClearActions()
	require.NoError(t, r.sync(ctx))
	require.Empty(t, client.Actions())

	gpus = &GPUs{
		Total: 8, Usable: 7, Status: corev1.ConditionFalse, Reason: "GPUsOut", Message: "GPU-3: XID 79",
		Labels: map[string]string{"nvidia.com/gpu.count": "7"}, Prefixes: gpus.Prefixes,
	}
	require.NoError(t, r.sync(ctx))
	n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	total, usable := n.Status.Capacity[contract.GPUResource], n.Status.Allocatable[contract.GPUResource]
	require.EqualValues(t, 8, total.Value())
	require.EqualValues(t, 7, usable.Value())
	require.Equal(t, "128", n.Status.Allocatable.Cpu().String(), "the rest stays")
	require.Equal(t, "7", n.Labels["nvidia.com/gpu.count"])
	require.NotContains(t, n.Labels, "nvidia.com/gpu.family")
	require.Equal(t, "false", n.Labels["nvidia.com/gpu.deploy.operands"], "not of the cards")
	var condition corev1.NodeCondition
	for _, c := range n.Status.Conditions {
		if c.Type == contract.GPUsUsableCondition {
			condition = c
		}
	}
	require.Equal(t, corev1.ConditionFalse, condition.Status)
	require.Equal(t, "GPU-3: XID 79", condition.Message)
}

func TestNewsOfACardIsWrittenBeforeTheTime(t *testing.T) {
	t.Parallel()
	r, changed, looked := registrar(fake.NewClientset()), make(chan struct{}, 1), 0
	r.Changed, r.Probe = changed, func(context.Context) Health { looked++; return Health{} }
	require.NoError(t, r.Register(t.Context()))
	changed <- struct{}{}
	require.NoError(t, r.await(t.Context(), nil), "the clock stands still")
	require.Equal(t, 2, looked)
}
