package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/v1alpha1"
)

// cut takes hub and target away.
func (m *box) cut() {
	m.hub.away.Store(true)
	m.server.CloseClientConnections()
}

func (m *box) awaitTenant(tenant *recorder, serving int64, stopped int) {
	m.Helper()
	require.Eventually(m, func() bool {
		s, n := tenant.now()
		return s == serving && n == stopped
	}, time.Minute, 5*time.Millisecond, "want %d served, %d times stopped", serving, stopped)
}

func TestAMachineThatNobodyHearsFromFencesItself(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	m.fenceAfter = time.Second // less than the time between two renewals of the Lease
	tenant, end := m.begin()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	_, stopped := tenant.now()

	// Silence is no proof of silence: the target is asked first.
	require.Eventually(t, func() bool { return m.hub.asked.Load() > 0 }, time.Minute, 5*time.Millisecond)
	serving, after := tenant.now()
	require.EqualValues(t, 1, serving)
	require.Equal(t, stopped, after)

	m.cut()
	m.awaitTenant(tenant, 0, stopped+1)
	require.FileExists(t, m.store.State.Credential(), "the binding stays")
	m.hub.away.Store(false)
	m.awaitTenant(tenant, 1, stopped+1)

	// A start in the silence goes on counting, and serves nothing.
	m.cut()
	m.awaitTenant(tenant, 0, stopped+2)
	end()
	long := time.Now().Add(-time.Hour)
	m.store.noteHeard(long)
	tenant, end = m.begin()
	m.awaitTenant(tenant, 0, 1)
	m.hub.away.Store(false)
	m.awaitTenant(tenant, 1, 1)
	end()
	require.True(t, m.store.lastHeard(time.Now()).After(long), "and that somebody answered is noted")
}

func TestAMachineIsNotFencedUnlessItIsTold(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	tenant, end := m.begin()
	defer end()
	m.bind(1)
	m.reports(v1alpha1.Bound, 1)
	_, stopped := tenant.now()
	m.cut()
	require.Never(t, func() bool { serving, n := tenant.now(); return serving != 1 || n != stopped }, 7*time.Second, 50*time.Millisecond)
}
