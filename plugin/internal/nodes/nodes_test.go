package nodes

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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

func TestReleased(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AINode{Spec: v1alpha1.AINodeSpec{BindEpoch: 2}, Status: v1alpha1.AINodeStatus{BindStatus: v1alpha1.Unbound, ObservedEpoch: 2}}
	require.True(t, Released(record))
	record.Status.ObservedEpoch = 1
	require.False(t, Released(record), "it speaks of an earlier epoch")
	require.True(t, Released(&v1alpha1.AINode{}), "never bound")
}
