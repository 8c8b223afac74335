package binding

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
)

func TestOwner(t *testing.T) {
	t.Parallel()
	mine, err := handover.GenerateKeyPair(rand.Reader)
	require.NoError(t, err)
	theirs, err := handover.GenerateKeyPair(rand.Reader)
	require.NoError(t, err)
	bound := v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: 5, SinceEpoch: 3}
	for name, c := range map[string]struct {
		spec       v1alpha1.AINodeSpec
		status     v1alpha1.BindStatus
		observed   int64
		key        string
		credential int64
		another    bool
	}{
		"nobody has joined":                   {},
		"never bound, another had joined":     {key: theirs.Public.String()},
		"bound, to this machine":              {spec: bound, status: v1alpha1.Bound, observed: 5, key: mine.Public.String(), credential: 5},
		"bound, and this one has lost it all": {spec: bound, status: v1alpha1.Bound, observed: 5, key: mine.Public.String()},
		"bound, to another":                   {spec: bound, status: v1alpha1.Bound, observed: 5, key: theirs.Public.String(), another: true},
		"being bound, to another":             {spec: bound, status: v1alpha1.Unbound, observed: 2, key: theirs.Public.String(), another: true},
		"this one's is an earlier binding":    {spec: bound, status: v1alpha1.Bound, observed: 5, key: theirs.Public.String(), credential: 2, another: true},
		"restored, with an earlier key":       {spec: bound, status: v1alpha1.Bound, observed: 5, key: theirs.Public.String(), credential: 3},
		"released, but the other has not":     {spec: v1alpha1.AINodeSpec{BindEpoch: 5}, status: v1alpha1.Bound, observed: 5, key: theirs.Public.String(), another: true},
		"released":                            {spec: v1alpha1.AINodeSpec{BindEpoch: 5}, status: v1alpha1.Unbound, observed: 5, key: theirs.Public.String()},
		"forced, and given to another":        {spec: v1alpha1.AINodeSpec{BindEpoch: 5}, status: v1alpha1.Unbound, observed: 5, key: theirs.Public.String(), credential: 5, another: true},
		"forced, and given to nobody":         {spec: v1alpha1.AINodeSpec{BindEpoch: 5}, status: v1alpha1.Unbound, observed: 5, key: mine.Public.String(), credential: 5},
		"restored, from before this binding":  {spec: v1alpha1.AINodeSpec{BindEpoch: 4}, status: v1alpha1.Unbound, observed: 4, key: theirs.Public.String(), credential: 5},
		"damaged":                             {spec: bound, status: v1alpha1.Bound, observed: 5, key: "?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record := &v1alpha1.AINode{Spec: c.spec, Status: v1alpha1.AINodeStatus{BindStatus: c.status, ObservedEpoch: c.observed, PublicKey: c.key}}
			want := ""
			if c.another {
				want = "the machine with key " + theirs.Public.Fingerprint()
			}
			require.Equal(t, want, owner(record, mine.Public, c.credential))
		})
	}
	require.Empty(t, owner(nil, mine.Public, 0))
}

// A machine is cut off from the hub and runs its pods. Another one joins under its name:
// it gets nothing of that binding until it was ended by force. When the first one hears
// the hub again it stops its pods, though the name is the other's by then, and says
// nothing in its place.
func TestANameIsGivenToAnotherMachine(t *testing.T) {
	t.Parallel()
	for name, bound := range map[string]bool{"bound": true, "not bound yet": false} {
		t.Run(name, func(t *testing.T) { t.Parallel(); givenToAnother(t, bound) })
	}
}

func givenToAnother(t *testing.T, bound bool) {
	t.Helper()
	first := newBox(t)
	h := first.hub
	_, end := first.begin()
	first.reports(v1alpha1.Unbound, 0)
	first.bind(1)
	first.reports(v1alpha1.Bound, 1)
	end()
	h.change(func() { h.lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-time.Hour)} }) // long ago
	was := h.status()

	second := &box{T: t, hub: h, server: first.server, ca: first.ca, store: testStore(t), holder: "other"}
	second.join()
	tenant, endSecond := second.begin()
	complains := func() string {
		c := meta.FindStatusCondition(h.status().Conditions, v1alpha1.ConditionConflict)
		if c == nil || c.Status != metav1.ConditionTrue {
			return ""
		}
		return c.Message
	}
	require.Eventually(t, func() bool { return complains() != "" }, time.Minute, 5*time.Millisecond)
	require.Equal(t, "machine other claims this name while the machine with key "+first.key.Public.Fingerprint()+
		" holds it; it starts nothing (if that one is gone for good: kubectl ainode unbind ai-1 --force; else unbind it, and stop its agent)", complains())
	first.handOver(1) // as a bind that goes on would
	require.Eventually(t, func() bool { _, stopped := tenant.now(); return stopped == 1 }, time.Minute, 5*time.Millisecond, "it has looked once for pods of its own")
	time.Sleep(100 * time.Millisecond)
	now := h.status()
	require.Equal(t, was.PublicKey, now.PublicKey)
	require.Equal(t, []any{was.BindStatus, was.ObservedEpoch}, []any{now.BindStatus, now.ObservedEpoch})
	require.Equal(t, "me", h.holder())
	serving, _ := tenant.now()
	require.Zero(t, serving)

	h.change(func() { // by force
		h.record.Spec = v1alpha1.AINodeSpec{BindEpoch: 1}
		h.record.Status.BindStatus, h.record.Status.ObservedEpoch = v1alpha1.Unbound, 1
		h.lease.Spec.HolderIdentity = nil // else it is watched standing still for 40 s
	})
	require.Eventually(t, func() bool { return h.status().PublicKey == second.key.Public.String() }, time.Minute, 5*time.Millisecond)
	require.Empty(t, complains(), "it has nothing to complain of any more")
	if bound {
		second.bind(2)
		second.reports(v1alpha1.Bound, 2)
	}
	marks, after := h.marked(), h.status()

	back, end := first.begin()
	require.Eventually(t, func() bool { _, stopped := back.now(); return stopped == 1 }, time.Minute, 5*time.Millisecond)
	require.Eventually(t, func() bool { c, err := first.store.Credential(); return err == nil && c == nil }, time.Minute, 5*time.Millisecond)
	require.Eventually(t, func() bool { return complains() != "" }, time.Minute, 5*time.Millisecond)
	require.Equal(t, marks, h.marked(), "the Node is the other's")
	require.Equal(t, "other", h.holder())
	now = h.status()
	require.Equal(t, second.key.Public.String(), now.PublicKey)
	require.Equal(t, []any{after.BindStatus, after.ObservedEpoch}, []any{now.BindStatus, now.ObservedEpoch})
	end()
	if bound {
		serving, _ = tenant.now()
		require.EqualValues(t, 2, serving)
	}
	endSecond()
}
