package nodes

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/endtime"
)

func TestBoundAnewAsItIs(t *testing.T) {
	t.Parallel()
	r := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{Name: "ai-1"}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", Address: "10.9.0.5"}}
	require.Equal(t, "kubectl ainode unbind ai-1 && kubectl ainode bind ai-1 --to prod --address ADDRESS", BoundAnew(r))
	until := metav1.NewTime(time.Date(2026, 11, 28, 8, 0, 0, 0, time.FixedZone("CST", 8*3600)))
	r.Spec.PodCIDR, r.Spec.Until, r.Spec.DrainGrace = "10.64.3.0/24", &until, &metav1.Duration{Duration: 90 * time.Minute}
	r.Spec.NodeLabels = map[string]string{corev1.LabelNodeExcludeBalancers: "true"}
	require.Equal(t, "kubectl ainode unbind ai-1 && kubectl ainode bind ai-1 --to prod --address ADDRESS"+
		" --pod-cidr 10.64.3.0/24 --lb-mode exclude --until 2026-11-28T00:00:00Z --drain-grace 1h30m0s", BoundAnew(r))

	// As bind reads it.
	at, err := endtime.Parse("2026-11-28T00:00:00Z", until.Add(-time.Hour))
	require.NoError(t, err)
	require.True(t, at.Equal(until.Time))
	grace, err := endtime.ParseGrace("1h30m0s")
	require.NoError(t, err)
	require.Equal(t, 90*time.Minute, grace)
}
