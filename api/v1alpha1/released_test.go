package v1alpha1

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReleased(t *testing.T) {
	t.Parallel()
	record := &AINode{Spec: AINodeSpec{BindEpoch: 2}, Status: AINodeStatus{BindStatus: Unbound, ObservedEpoch: 2}}
	require.True(t, record.Released())
	record.Status.ObservedEpoch = 1
	require.False(t, record.Released(), "it speaks of an earlier epoch")
	record.Status.ObservedEpoch, record.Spec.ClusterConfigName = 2, "prod"
	require.False(t, record.Released(), "it is to be bound again")
	require.True(t, (&AINode{}).Released(), "never bound")
}
