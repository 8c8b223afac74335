package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// The end is the binding's that the machine has: also of a renewed one, and of one that a
// restored hub has learnt again; not that of a record from before.
func TestWhoseEndIsKept(t *testing.T) {
	t.Parallel()
	at := metav1.NewTime(time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC))
	for name, c := range map[string]struct {
		epoch, since int64
		kept         bool
	}{
		"this binding's":                {6, 5, true},
		"being renewed":                 {7, 5, true},
		"learnt again":                  {6, 6, true},
		"learnt again, since before":    {6, 2, true},
		"a restored hub's, out of date": {5, 5, false},
		"the next binding's":            {7, 7, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newBox(t)
			b, err := New(Options{Store: m.store, Joined: Joined{Node: "ai-1", Server: m.server.URL, CertificateAuthorityData: m.ca}, Key: m.key, Clock: clock.RealClock{}, Facts: func() Facts { return Facts{} }})
			require.NoError(t, err)
			b.credential = &Credential{Credential: handover.Credential{Node: "ai-1", Epoch: 6}, SinceEpoch: 5}
			b.keepEnd(t.Context(), &v1alpha1.AINode{Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: c.epoch, SinceEpoch: c.since, Until: &at}})
			end, _ := b.end.Get()
			require.Equal(t, c.kept, !end.IsZero())
		})
	}
}

// A hub that was restored has the end again that stood in its backup. That is no later
// word, whatever else is written into the record after it, until somebody sets an end.
func TestAnEndOfBeforeIsNotTakenOver(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	record := func(generation int64, end time.Time) *v1alpha1.AINode {
		r := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{UID: "u", Generation: generation}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: 6}}
		if !end.IsZero() {
			until(&r.Spec, end, time.Minute)
		}
		return r
	}
	six, eight := noon.Add(6*time.Hour), noon.Add(8*time.Hour)
	ends := func(at time.Time) term.End {
		if at.IsZero() {
			return term.End{}
		}
		return term.End{Until: at, DrainGrace: time.Minute}
	}
	type seen struct {
		generation int64
		end        time.Time
		want       time.Time
		restored   bool
	}
	for name, all := range map[string][]seen{
		"later, restored, learnt again": {{5, noon, noon, false}, {7, six, six, false}, {6, noon, six, true}, {7, six, six, false}, {8, eight, eight, false}},
		"far back, another end":         {{5, noon, noon, false}, {9, six, six, false}, {2, noon, six, true}, {3, eight, eight, false}},
		"far back, learnt again, moved": {{9, six, six, false}, {2, noon, six, true}, {3, six, six, false}, {4, eight, eight, false}},
		"its own, after another":        {{9, six, six, false}, {2, noon, six, true}, {3, noon.Add(time.Second), noon.Add(time.Second), false}, {4, noon, noon, false}},
		"its own, after none":           {{9, six, six, false}, {2, noon, six, true}, {3, time.Time{}, time.Time{}, false}, {4, noon, noon, false}},
		"another edit after it":         {{5, noon, noon, false}, {6, six, six, false}, {5, noon, six, true}, {6, noon, six, true}, {7, noon, six, true}},
		"taken away, and back":          {{5, noon, noon, false}, {6, time.Time{}, time.Time{}, false}, {5, noon, time.Time{}, true}},
		"given, and lost":               {{5, time.Time{}, time.Time{}, false}, {6, noon, noon, false}, {5, time.Time{}, noon, true}},
		"restored without a difference": {{5, noon, noon, false}, {9, noon, noon, false}, {4, noon, noon, false}, {5, six, six, false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := testStore(t)
			for i, s := range all {
				k, err := store.End()
				require.NoError(t, err, "each time as after a restart")
				if k.see(record(s.generation, s.end)) {
					require.NoError(t, store.SaveEnd(k))
				}
				require.True(t, ends(s.want).Equal(k.End), "%d: %v", i, k)
				require.Equal(t, s.restored, k.Restored != nil, "%d", i)
			}
		})
	}
}

// A hub that lost a renewal and an end too learns both by one edit, with another end.
func TestAnotherEndWithWhatIsLearntAgain(t *testing.T) {
	t.Parallel()
	m := newBox(t)
	b, err := New(Options{Store: m.store, Joined: Joined{Node: "ai-1", Server: m.server.URL, CertificateAuthorityData: m.ca}, Key: m.key, Clock: clock.RealClock{}, Facts: func() Facts { return Facts{} }})
	require.NoError(t, err)
	b.credential = &Credential{Credential: handover.Credential{Node: "ai-1", Epoch: 2}, SinceEpoch: 1}
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	see := func(generation, epoch int64, config string, hour time.Duration) time.Time {
		r := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{UID: "u", Generation: generation}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: config, BindEpoch: epoch, SinceEpoch: 1}}
		if config != "" {
			until(&r.Spec, noon.Add(hour*time.Hour), time.Minute)
		}
		b.keepEnd(t.Context(), r)
		end, _ := b.end.Get()
		return end.Until
	}
	require.Equal(t, noon.Add(6*time.Hour), see(5, 2, "prod", 6))
	require.Equal(t, noon.Add(6*time.Hour), see(3, 1, "prod", 0), "restored: before the renewal")
	require.Equal(t, noon.Add(8*time.Hour), see(4, 2, "prod", 8), "learnt again, with another end")
	require.Equal(t, noon.Add(8*time.Hour), see(2, 0, "", 0), "restored: before the binding")
	require.Equal(t, noon.Add(9*time.Hour), see(3, 2, "prod", 9))
}
