package identity

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A mark counts only of the Node that was bound with that very epoch or an earlier one.
func TestReleasedEpoch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bound, released string
		epoch           int64
		ok              bool
	}{
		"released":                {"3", "3", 3, true},
		"marked, and bound again": {"4", "3", 4, false},
		"bound":                   {"3", "", 3, false},
		"somebody else's Node":    {"", "3", 0, false},
		"no number":               {"3", "three", 3, false},
	} {
		o := &metav1.ObjectMeta{Annotations: map[string]string{"ainode.dev/bind-epoch": c.bound, "ainode.dev/released-epoch": c.released}}
		epoch, ok := ReleasedEpoch(o)
		require.Equal(t, c.ok, ok, name)
		if ok {
			require.Equal(t, c.epoch, epoch, name)
		}
	}
}

func TestTargetEpoch(t *testing.T) {
	t.Parallel()
	role := func(name string) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Name: name, Annotations: map[string]string{"ainode.dev/bind-epoch": "7"}}
	}
	epoch, ok := TargetEpoch(role("ainode-ai-1-7"), "ai-1")
	require.True(t, ok)
	require.EqualValues(t, 7, epoch)
	for _, name := range []string{"ainode-ai-1-6", "ainode-ai-10-7", HubRole("ai-1")} {
		_, ok = TargetEpoch(role(name), "ai-1")
		require.False(t, ok, name)
	}
	_, ok = TargetEpoch(&metav1.ObjectMeta{Name: "ainode-ai-1-0"}, "ai-1")
	require.False(t, ok, "no epoch at all")
}
