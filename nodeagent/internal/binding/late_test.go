package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// A report that is on its way while somebody ends the binding by force overwrites nothing
// of that: the node does not stand as Draining again, and why it was unbound stays told.
func TestALateReportOverwritesNothing(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	tenant, end := m.begin()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	tenant.serveWith(SelfSigned) // the conditions are one list: a report that has news of one writes all
	m.hub.change(func() {
		m.hub.record.Spec.Draining = true
		m.hub.meanwhile = func() {
			r := &m.hub.record
			r.Spec = v1alpha1.AINodeSpec{BindEpoch: 1}
			r.Status.BindStatus, r.Status.ObservedEpoch = v1alpha1.Unbound, 1
			meta.SetStatusCondition(&r.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionForced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnboundByForce,
			})
		}
	})
	require.Eventually(t, func() bool {
		c := meta.FindStatusCondition(m.hub.status().Conditions, v1alpha1.ConditionForced)
		return c != nil && c.Reason == v1alpha1.ReasonStopped
	}, time.Minute, 5*time.Millisecond)
	end()
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	require.Equal(t, []v1alpha1.BindStatus{
		v1alpha1.Unbound, v1alpha1.Binding, v1alpha1.Bound, v1alpha1.Unbinding, v1alpha1.Unbound,
	}, m.hub.statuses)
}
