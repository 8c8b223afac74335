package nodes

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/v1alpha1"
)

func TestNextEnd(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 23, 0, 0, 0, time.FixedZone("CET", 3600))
	bound := func(name string, until time.Duration) v1alpha1.AINode {
		r := v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod"}}
		if until != 0 {
			r.Spec.Until = ptr.To(metav1.NewTime(now.Add(until)))
		}
		return r
	}
	require.Empty(t, NextEnd([]v1alpha1.AINode{bound("ai-ever", 0)}, now))
	require.Equal(t, "The binding of ai-h200-01 ends at 2026-11-27 08:00 CET (in 9h).", NextEnd([]v1alpha1.AINode{bound("ai-ever", 0), bound("ai-h200-01", 9*time.Hour)}, now))
	text := NextEnd([]v1alpha1.AINode{bound("ai-l20-07", 48*time.Hour), bound("ai-h200-01", 9*time.Hour), bound("ai-l20-08", 10*time.Hour)}, now)
	require.Equal(t, "3 bindings have an end; first: ai-h200-01, 2026-11-27 08:00 CET (in 9h)\nSee all:  kubectl ainode list -o wide", text)
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 80)
	}
}
