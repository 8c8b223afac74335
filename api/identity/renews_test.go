package identity

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The note holds for the renewal that it was written with, also read from an API, and for
// no later one.
func TestWhoRenewedLastKnowsRenewals(t *testing.T) {
	t.Parallel()
	now := metav1.NewMicroTime(time.Date(2026, 11, 24, 4, 0, 0, 123456789, time.FixedZone("CET", 3600)))
	lease := &coordinationv1.Lease{}
	require.False(t, Renews(lease))
	lease.Spec.RenewTime = &now
	require.False(t, Renews(lease))
	SayRenews(lease)
	require.True(t, Renews(lease))
	raw, err := json.Marshal(lease)
	require.NoError(t, err)
	var read coordinationv1.Lease
	require.NoError(t, json.Unmarshal(raw, &read))
	require.True(t, Renews(&read))
	later := metav1.NewMicroTime(read.Spec.RenewTime.Add(10 * time.Second))
	read.Spec.RenewTime = &later // by an agent that does not know the note
	require.False(t, Renews(&read))
}
