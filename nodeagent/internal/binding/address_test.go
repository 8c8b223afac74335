package binding

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

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

// Where the machine has lost the address that it is bound at, its record says so as long
// as that is so, and its pods are looked after.
func TestTheAddressIsGone(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	m.hub.change(func() { m.hub.record.Spec.Address = "10.9.0.7" })
	_, end := m.begin()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	end()

	m.lacks.Store(ptr.To("10.9.0.7"))
	tenant, end := m.begin()
	tenant.serves(t, 1)
	ready := func(status metav1.ConditionStatus, text string) {
		t.Helper()
		require.Eventually(t, func() bool {
			c := meta.FindStatusCondition(m.hub.status().Conditions, v1alpha1.ConditionReady)
			return c != nil && c.Status == status && strings.Contains(c.Message, text)
		}, time.Minute, 5*time.Millisecond)
	}
	ready(metav1.ConditionFalse, "address 10.9.0.7, chosen at bind, is no longer this machine's: give it back to the machine, or unbind")
	m.reports(v1alpha1.Bound, 1)
	m.lacks.Store(ptr.To("10.0.0.7")) // which the binding does not go by
	ready(metav1.ConditionTrue, "")
	end()

	m = newBox(t)
	_, end = m.begin()
	defer end()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	m.lacks.Store(ptr.To("10.0.0.7"))
	ready(metav1.ConditionFalse, "address 10.0.0.7, which the agent began with, is not this machine's")
}

// A hub whose CRD is older than the agent drops what it does not know. It is told that once,
// and again when something else is to be said, or after a while: the CRD may be newer then.
func TestAnOlderHubIsNotToldForEver(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	m.hub.prunes = func(r *v1alpha1.AINode) { r.Status.Addresses = nil }
	now := clocktesting.NewFakeClock(time.Now())
	facts := m.facts()
	b, err := New(Options{
		Store: m.store, Joined: Joined{Node: "ai-1", Server: m.server.URL, CertificateAuthorityData: m.ca}, Key: m.key, Holder: m.holder,
		Tenant: &recorder{}, Clock: now, Facts: func() Facts { return facts },
	})
	require.NoError(t, err)
	patches := func() int {
		m.hub.mu.Lock()
		defer m.hub.mu.Unlock()
		return m.hub.patches
	}
	report := func() {
		t.Helper()
		now.Step(statusPeriod)
		record, err := b.readRecord(t.Context()) // as the watch has it
		require.NoError(t, err)
		b.sawRecord(record)
		s, _ := b.situation()
		require.Equal(t, statusPeriod, b.report(t.Context(), Rest, s))
	}
	for range 5 {
		report()
	}
	require.LessOrEqual(t, patches(), 2, "the first, and what it dropped")
	told := patches()
	facts.AgentVersion = "v2"
	report()
	require.Equal(t, told+1, patches(), "what is new is told")
	require.Equal(t, "v2", m.hub.status().AgentVersion)
	for range 3 {
		report()
	}
	m.hub.mu.Lock()
	m.hub.prunes = nil
	m.hub.mu.Unlock()
	now.Step(dropped)
	report()
	require.Equal(t, facts.Addresses, m.hub.status().Addresses, "the CRD was updated")
	told = patches()
	report()
	require.Equal(t, told, patches())
}
