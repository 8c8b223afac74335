package nodes

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
)

func TestSimilar(t *testing.T) {
	t.Parallel()
	names := []string{"ai-h200-01", "ai-h200-02", "ai-l20-03", "ai-gb300"}
	require.Equal(t, []string{"ai-h200-01", "ai-h200-02"}, Similar("ai-h200-1", names)[:2])
	require.Empty(t, Similar("something-else", names))
	require.Equal(t, []string{"ai-gb300"}, Similar("ai-gb30", names)[:1])
}

func TestGPUs(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]v1alpha1.AINodeStatus{
		"<none>":                {},
		"1×L20":                 {GPUs: []v1alpha1.GPU{{Product: "NVIDIA L20"}}},
		"2×H200 (simulated)":    {SimulatedGPUs: "dgxh200", GPUs: []v1alpha1.GPU{{Product: "NVIDIA H200"}, {Product: "NVIDIA H200"}}},
		"1×A100-SXM4-40GB,1×T4": {GPUs: []v1alpha1.GPU{{Product: "NVIDIA A100-SXM4-40GB"}, {Product: "Tesla T4"}}},
	} {
		require.Equal(t, want, GPUs(s))
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	fresh := Sign{Known: true, Seen: now.Add(-5 * time.Second), Life: 40 * time.Second}
	stale := Sign{Known: true, Seen: now.Add(-41 * time.Second), Life: 40 * time.Second}
	bound := &v1alpha1.AINode{Status: v1alpha1.AINodeStatus{PublicKey: "k", BindStatus: v1alpha1.Bound}}
	require.Equal(t, "Bound", Status(bound, fresh, now))
	require.Equal(t, Lost, Status(bound, stale, now))
	require.Equal(t, "Bound", Status(bound, Sign{}, now), "nobody is called lost where leases can't be read")
	require.Equal(t, NotJoined, Status(&v1alpha1.AINode{}, fresh, now))
}

// What was ended by force is not free like others, until its machine has said that it
// stopped all that it ran.
func TestStatusOfWhatWasEndedByForce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	silent, back := Sign{Known: true, Seen: now.Add(-100 * time.Minute), Life: 40 * time.Second}, Sign{Known: true, Seen: now, Life: 40 * time.Second}
	for name, c := range map[string]struct {
		bind   v1alpha1.BindStatus
		config string
		forced metav1.ConditionStatus
		sign   Sign
		want   string
	}{
		"silent since":        {v1alpha1.Unbound, "", metav1.ConditionTrue, silent, "Forced 100m"},
		"leases are not read": {v1alpha1.Unbound, "", metav1.ConditionTrue, Sign{}, "Forced"},
		"heard of again":      {v1alpha1.Unbound, "", metav1.ConditionTrue, back, "Forced"},
		"it stops its pods":   {v1alpha1.Unbinding, "", metav1.ConditionTrue, back, "Unbinding"},
		"it has stopped them": {v1alpha1.Unbound, "", metav1.ConditionFalse, back, "Unbound"},
		"and is silent again": {v1alpha1.Unbound, "", metav1.ConditionFalse, silent, "Lost 100m"},
		"bound again":         {v1alpha1.Unbound, "prod", metav1.ConditionTrue, back, "Unbound"},
	} {
		r := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{Name: "ai-h200-01"}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: c.config}, Status: v1alpha1.AINodeStatus{
			PublicKey: "k", BindStatus: c.bind, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionForced, Status: c.forced}},
		}}
		table := Table([]v1alpha1.AINode{*r}, map[string]Sign{r.Name: c.sign}, now)
		require.Equal(t, c.want, table.Rows[0].Cells[1], name)
	}
}

// A Lease is dated by two clocks: the machine's in what it writes, the hub's in who
// wrote that when. Others may write to it too.
func TestSignIsDatedByTheHub(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	sign := SignOf(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
			{Time: ptr.To(metav1.NewTime(now)), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:renewTime":{}}}`)},
			{Time: ptr.To(metav1.NewTime(now.Add(time.Hour))), FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{}}}`)},
		}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("m1"), RenewTime: &metav1.MicroTime{Time: now.Add(time.Minute)}},
	})
	require.Equal(t, now, sign.Written)
	require.Equal(t, now.Add(time.Minute), sign.Seen)
	require.True(t, SignOf(nil).Written.IsZero())
}

func TestTheCardMap(t *testing.T) {
	t.Parallel()
	pod := func(name string, phase corev1.PodPhase, health corev1.ResourceHealthStatus, cards ...string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name}, Status: corev1.PodStatus{Phase: phase}}
		status := corev1.ResourceStatus{Name: contract.GPUResource}
		for _, card := range cards {
			status.Resources = append(status.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(card), Health: health})
		}
		p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{contract.GPUResource: *resource.NewQuantity(int64(len(cards)), resource.DecimalSI)},
		}}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", AllocatedResourcesStatus: []corev1.ResourceStatus{status}}}
		return p
	}
	record := &v1alpha1.AINode{Status: v1alpha1.AINodeStatus{SimulatedGPUs: "dgxh200", GPUs: []v1alpha1.GPU{
		{UUID: "GPU-a"}, {UUID: "GPU-b", Index: 1}, {UUID: "GPU-c", Index: 2}, {UUID: "GPU-d", Index: 3},
	}}}
	node := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: contract.GPUsUsableCondition, Status: corev1.ConditionFalse, Message: "GPU-b: XID 79"},
	}}}
	view := View{Record: record, Node: node, Now: time.Unix(0, 0), Pods: []corev1.Pod{
		pod("train", corev1.PodRunning, corev1.ResourceHealthStatusHealthy, "GPU-a", "GPU-c"),
		pod("victim", corev1.PodRunning, corev1.ResourceHealthStatusUnhealthy, "GPU-b"),
		pod("done", corev1.PodSucceeded, corev1.ResourceHealthStatusHealthy, "GPU-d"),
	}}
	var out strings.Builder
	require.NoError(t, Describe(&out, view))
	require.Regexp(t, `(?m)^GPUs usable: +False  GPU-b: XID 79$`, out.String())
	require.Regexp(t, `(?m)^Card map \(simulated\):\n  0: +ml/train \(main\)\n  1: +ml/victim \(main\), failed\n  2: +ml/train \(main\)\n  3: +-$`, out.String())

	for i := range view.Pods {
		view.Pods[i].Status.ContainerStatuses = nil
	}
	out.Reset()
	require.NoError(t, Describe(&out, view))
	require.Contains(t, out.String(), "does not keep which pod has which card")
}

// Slices stand below each other by their card and profile, each with its pod.
func TestTheCardMapOfSlices(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AINode{Status: v1alpha1.AINodeStatus{GPUs: []v1alpha1.GPU{
		{UUID: "GPU-a", Product: "NVIDIA H100 80GB HBM3"},
		{UUID: "GPU-b", Index: 1, Product: "NVIDIA H100 80GB HBM3", MIG: true, Slices: []v1alpha1.GPUSlice{{UUID: "MIG-a", Profile: "3g.40gb"}, {UUID: "MIG-b", Profile: "1g.10gb"}}},
		{UUID: "GPU-c", Index: 2, Product: "NVIDIA H100 80GB HBM3", MIG: true},
	}}}
	const kind = corev1.ResourceName("nvidia.com/mig-1g.10gb")
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "serve"}}
	pod.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{kind: resource.MustParse("1")}}}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", AllocatedResourcesStatus: []corev1.ResourceStatus{
		{Name: kind, Resources: []corev1.ResourceHealth{{ResourceID: "MIG-b", Health: corev1.ResourceHealthStatusHealthy}}},
	}}}
	var out strings.Builder
	require.NoError(t, Describe(&out, View{Record: record, Node: &corev1.Node{}, Now: time.Unix(0, 0), Pods: []corev1.Pod{pod}}))
	require.Regexp(t, `(?m)^Card map:\n  0: +-\n  1 3g.40gb: +-\n  1 1g.10gb: +ml/serve \(main\)\n  2: +in MIG mode, without slices$`, out.String())
	require.Regexp(t, `(?m)^  1 3g.40gb: +MIG-a$`, out.String())
	require.Regexp(t, `(?m)^GPUs: +3×H100, 2 of them in MIG mode with 2 slices, 0 in use$`, out.String())
	require.Regexp(t, `(?m)^  ml/serve: +.*  1 MIG slice  `, out.String())
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, len([]rune(line)), 81, line)
	}
}
