package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// renew raises the epoch as the plugin does; the binding stays the same.
func (m *box) renew(epoch int64) {
	m.hub.change(func() {
		m.hub.record.Spec.SinceEpoch = m.hub.record.Spec.FirstEpoch()
		m.hub.record.Spec.BindEpoch = epoch
	})
}

// serves waits until the tenant acts with the credential of epoch, for the binding that
// began in the first.
func (r *recorder) serves(t *testing.T, epoch int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.serving == epoch && r.since == 1
	}, time.Minute, 5*time.Millisecond)
}

func (r *recorder) serveWith(c Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certificate = c
}

func (m *box) stored() *Credential {
	m.Helper()
	c, err := m.store.Credential()
	require.NoError(m, err)
	require.NotNil(m, c)
	return c
}

// A credential is renewed while its pods run on: with the agent there, and while it is
// down; the old one is acted with until the new one is stored.
func TestARenewalStopsNothing(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	tenant, end := m.begin()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	_, leftovers := tenant.now()

	m.renew(2)
	// Nothing is handed over yet. That the agent has seen the record shows in what it
	// reports of it.
	m.hub.change(func() { m.hub.record.Spec.Draining = true })
	m.reports(v1alpha1.Draining, 1)
	tenant.serves(t, 1)
	m.hub.change(func() { m.hub.record.Spec.Draining = false })
	m.reports(v1alpha1.Bound, 1)
	m.handOver(2)
	m.reports(v1alpha1.Bound, 2)
	tenant.serves(t, 2)
	require.Equal(t, identity.Target("ai-1", 2), m.stored().ServiceAccount)
	require.True(t, meta.IsStatusConditionTrue(m.hub.status().Conditions, v1alpha1.ConditionCredentialValid))
	// That nobody signs a serving certificate is told at the next look.
	require.Nil(t, meta.FindStatusCondition(m.hub.status().Conditions, v1alpha1.ConditionServingCertificate))
	tenant.serveWith(SelfSigned)
	m.hub.change(func() {})
	require.Eventually(t, func() bool {
		return meta.IsStatusConditionFalse(m.hub.status().Conditions, v1alpha1.ConditionServingCertificate)
	}, time.Minute, 5*time.Millisecond)
	end()
	_, stopped := tenant.now()
	require.Equal(t, leftovers, stopped, "no pod was stopped")

	// Twice more while it is down: what it starts with is two credentials old.
	m.renew(3)
	m.renew(4)
	m.handOver(3)
	tenant, end = m.begin()
	tenant.serves(t, 2)
	m.handOver(4)
	m.reports(v1alpha1.Bound, 4)
	tenant.serves(t, 4)

	// Another binding is another one, however near its epoch lies.
	m.hub.change(func() { m.hub.record.Spec.BindEpoch, m.hub.record.Spec.SinceEpoch = 5, 5 })
	m.reports(v1alpha1.Binding, 5)
	end()
	_, stopped = tenant.now()
	require.Equal(t, 1, stopped)
	require.NoDirExists(t, m.store.State.Target())
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	require.Empty(t, m.hub.secret.Data[handover.SealedKey])
	require.Equal(t, []v1alpha1.BindStatus{
		v1alpha1.Unbound, v1alpha1.Binding, v1alpha1.Bound, v1alpha1.Draining, v1alpha1.Bound, v1alpha1.Unbinding, v1alpha1.Binding,
	}, m.hub.statuses, "it was Bound throughout")
}

// A hub that was restored may have lost what was chosen at bind: pods that run have
// addresses of that range, and the machine tells it.
func TestARenewalKeepsTheRange(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	const pods = "10.64.3.0/24"
	m.hub.change(func() { m.hub.record.Spec.PodCIDR, m.hub.record.Spec.NodeLabels = pods, map[string]string{"zone": "a"} })
	_, end := m.begin()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	m.hub.change(func() { m.hub.record.Spec.PodCIDR, m.hub.record.Spec.NodeLabels = "", nil })
	m.renew(2)
	m.handOver(2)
	m.reports(v1alpha1.Bound, 2)
	end()
	require.Equal(t, pods, m.stored().PodCIDR)
	require.Equal(t, map[string]string{"zone": "a"}, m.stored().NodeLabels)
	require.Equal(t, pods, m.hub.status().Binding.PodCIDR)
}
