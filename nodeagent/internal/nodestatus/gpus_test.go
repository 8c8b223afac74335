package nodestatus

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/contract"
)

func cards(n int) map[corev1.ResourceName]int {
	return map[corev1.ResourceName]int{contract.GPUResource: n}
}

// Slices are counted by their kind beside whole cards. A kind that goes is 0 for a
// while, and then is no more; other resources of the Node stay as they are.
func TestAKindOfSlicesComesAndGoes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const one, three = corev1.ResourceName("nvidia.com/mig-1g.10gb"), corev1.ResourceName("nvidia.com/mig-3g.40gb")
	client, now := fake.NewClientset(), testclock.NewFakeClock(time.Now())
	r := registrar(client)
	r.Clock = now
	r.Facts.Capacity = r.Facts.Capacity.DeepCopy()
	r.Facts.Capacity[one] = resource.MustParse("7") // as they were at bind
	gpus := &GPUs{Total: cards(6), Usable: cards(6), Status: corev1.ConditionTrue}
	gpus.Total[one], gpus.Usable[one] = 7, 6
	r.Probe = func(context.Context) Health { return Health{GPUs: gpus} }
	require.NoError(t, r.Register(ctx))
	look := func(list func(corev1.NodeStatus) corev1.ResourceList) map[corev1.ResourceName]int64 {
		require.NoError(t, r.sync(ctx))
		n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
		require.NoError(t, err)
		counts := map[corev1.ResourceName]int64{}
		for name, q := range list(n.Status) {
			if contract.IsGPUResource(name) {
				counts[name] = q.Value()
			}
		}
		require.Equal(t, "128", n.Status.Allocatable.Cpu().String())
		return counts
	}
	capacity := func(s corev1.NodeStatus) corev1.ResourceList { return s.Capacity }
	allocatable := func(s corev1.NodeStatus) corev1.ResourceList { return s.Allocatable }
	require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 6, one: 7}, look(capacity))
	require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 6, one: 6}, look(allocatable))

	gpus = &GPUs{Total: cards(7), Usable: cards(7), Status: corev1.ConditionTrue}
	gpus.Total[three], gpus.Usable[three] = 2, 2
	for range 2 {
		require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 7, one: 0, three: 2}, look(capacity))
		require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 7, one: 0, three: 2}, look(allocatable))
		now.Step(goneFor / 2)
	}
	require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 7, three: 2}, look(capacity))
	require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 7, three: 2}, look(allocatable))

	gpus = &GPUs{Total: cards(8), Usable: cards(8), Status: corev1.ConditionTrue}
	gpus.Total[one], gpus.Usable[one] = 1, 1
	require.Equal(t, map[corev1.ResourceName]int64{contract.GPUResource: 8, one: 1, three: 0}, look(allocatable))
}

func TestACardThatFailsLeavesTheNode(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	r.Facts.GPULabels = map[string]string{"nvidia.com/gpu.count": "8", "nvidia.com/gpu.family": "hopper"}
	gpus := &GPUs{
		Total: cards(8), Usable: cards(8), Status: corev1.ConditionTrue, Reason: "GPUsUsable", Labels: r.Facts.GPULabels,
		Prefixes: []string{"nvidia.com/gpu.c", "nvidia.com/gpu.f"},
	}
	r.Probe = func(context.Context) Health { return Health{GPUs: gpus} }
	require.NoError(t, r.Register(ctx))
	client.ClearActions()
	require.NoError(t, r.sync(ctx))
	require.Empty(t, client.Actions())

	gpus = &GPUs{
		Total: cards(8), Usable: cards(7), Status: corev1.ConditionFalse, Reason: "GPUsOut", Message: "GPU-3: XID 79",
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
