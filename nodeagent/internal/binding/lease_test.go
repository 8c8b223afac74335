package binding

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// leaseOfOne makes machines that want the one Lease of a hub.
func leaseOfOne() (machine func(holder string, clock clock.Clock) *claimer) {
	const ai = "ai-1"
	// add makes the Lease, so that the agent's account need not be able to.
	hub := fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: contract.SystemNamespace, Name: identity.HubLease(ai)}})
	return func(holder string, clock clock.Clock) *claimer {
		return &claimer{hub: hub, node: ai, holder: holder, clock: clock, hubTime: func() time.Time { return time.Time{} }}
	}
}

func claimed(t *testing.T, c *claimer) Claim {
	t.Helper()
	state, _, err := c.claim(context.Background())
	require.NoError(t, err)
	return state
}

func TestOneMachineHoldsTheLease(t *testing.T) {
	t.Parallel()
	clock := testclock.NewFakeClock(start)
	machine := leaseOfOne()
	first, second := machine("one", clock), machine("two", clock)
	require.Equal(t, Ours, claimed(t, first))
	require.Equal(t, Elsewhere, claimed(t, second))
	clock.Step(30 * time.Second)
	require.Equal(t, Ours, claimed(t, first))
	clock.Step(30 * time.Second)
	require.Equal(t, Elsewhere, claimed(t, second), "renewed since: its time begins anew")
	clock.Step(39 * time.Second)
	require.Equal(t, Elsewhere, claimed(t, second))
	clock.Step(time.Second)
	require.Equal(t, Ours, claimed(t, second), "it stood still for the whole duration")
	require.Equal(t, Elsewhere, claimed(t, first))
	_, other, err := first.claim(context.Background())
	require.NoError(t, err)
	require.Equal(t, "two", other)
}

// Each renewal says that this agent knows renewals of its credential; none of an agent
// that does not say so keeps the word.
func TestEachRenewalSaysWhatTheAgentKnows(t *testing.T) {
	t.Parallel()
	clock := testclock.NewFakeClock(start)
	c := leaseOfOne()("one", clock)
	for range 2 {
		require.Equal(t, Ours, claimed(t, c))
		lease, err := c.hub.CoordinationV1().Leases(contract.SystemNamespace).Get(t.Context(), identity.HubLease(c.node), metav1.GetOptions{})
		require.NoError(t, err)
		require.True(t, identity.Renews(lease))
		clock.Step(leaseRenewal)
	}
}

// An agent that is stopped takes its word back: the one that starts next may be an older.
// It leaves a Lease alone that another machine has.
func TestAStoppedAgentTakesItsWordBack(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	says := func() bool {
		m.hub.mu.Lock()
		defer m.hub.mu.Unlock()
		return identity.Renews(&m.hub.lease)
	}
	_, end := m.begin()
	require.Eventually(t, says, time.Minute, 5*time.Millisecond)
	end()
	require.False(t, says())
	require.Equal(t, "me", *m.hub.lease.Spec.HolderIdentity, "the name stays this machine's")

	_, end = m.begin()
	require.Eventually(t, says, time.Minute, 5*time.Millisecond)
	m.hub.change(func() { m.hub.lease.Spec.HolderIdentity = ptr.To("another") })
	end()
	require.True(t, says())
}

// A copy whose clock runs ahead sees renewals that look old, and takes nothing.
func TestAClockThatRunsAheadTakesNoLease(t *testing.T) {
	t.Parallel()
	right, ahead := testclock.NewFakeClock(start), testclock.NewFakeClock(start.Add(24*time.Hour))
	machine := leaseOfOne()
	first, clone := machine("one", right), machine("two", ahead)
	for range 30 {
		require.Equal(t, Ours, claimed(t, first))
		require.Equal(t, Elsewhere, claimed(t, clone))
		right.Step(leaseRenewal)
		ahead.Step(leaseRenewal)
	}
}

// What the hub took in long ago by its own time has run out, whatever the machines
// think of the time: a machine that was off for a while need not wait.
func TestTheHubSaysThatALeaseIsOld(t *testing.T) {
	t.Parallel()
	hubSays := start.Add(72 * time.Hour)
	for name, c := range map[string]struct {
		age     time.Duration
		answers time.Time
		want    bool
	}{
		"a boot later":                     {4 * time.Minute, hubSays, true},
		"renewed lately":                   {30 * time.Second, hubSays, false},
		"API servers that differ":          {-time.Minute, hubSays, false},
		"a hub that does not say the time": {4 * time.Minute, time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lease := &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
					{Manager: "kubectl", Time: &metav1.Time{Time: hubSays}, FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)},
					{Manager: "ainode-agent", Time: &metav1.Time{Time: hubSays.Add(-c.age)}, FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:renewTime":{}}}`)},
				}},
				Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: start}},
			}
			machine := leaseOfOne()
			second := machine("boot-2", testclock.NewFakeClock(start.Add(-time.Hour)))
			second.hubTime = func() time.Time { return c.answers }
			require.Equal(t, c.want, second.expired(lease))
		})
	}
}
