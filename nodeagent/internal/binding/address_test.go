package binding

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/v1alpha1"
)

// An address that was chosen at bind is the machine's while the binding is served, over a
// restart, over a renewal, and though a restored hub has lost it; then its own is again.
func TestTheChosenAddress(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	const own, chosen = "10.0.0.7", "10.9.0.7"
	at := func(r *recorder) string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.address
	}
	tenant, end := m.begin()
	m.reports(v1alpha1.Unbound, 0)
	require.Equal(t, own, m.hub.status().Address)
	require.Equal(t, []string{own, chosen}, m.hub.status().Addresses, "of which people choose")

	m.hub.change(func() { m.hub.record.Spec.Address = chosen })
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	require.Equal(t, chosen, m.hub.status().Address)
	require.Equal(t, chosen, m.hub.status().Binding.Address)
	require.Equal(t, chosen, at(tenant))
	end()

	m.hub.change(func() { m.hub.record.Spec.Address = "" })
	tenant, end = m.begin()
	tenant.serves(t, 1)
	require.Equal(t, chosen, at(tenant))
	m.renew(2)
	m.handOver(2)
	m.reports(v1alpha1.Bound, 2)
	tenant.serves(t, 2)
	require.Equal(t, chosen, at(tenant))
	require.Equal(t, chosen, m.hub.status().Address)

	m.hub.change(func() { m.hub.record.Spec.ClusterConfigName = "" })
	m.reports(v1alpha1.Unbound, 2)
	require.Equal(t, own, m.hub.status().Address)
	end()
}
