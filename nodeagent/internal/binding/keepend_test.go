package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
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
			b, err := New(Options{Store: m.store, Joined: Joined{Node: "ai-1", Server: m.server.URL, CertificateAuthorityData: m.ca}, Key: m.key, Clock: clock.RealClock{}})
			require.NoError(t, err)
			b.credential = &Credential{Credential: handover.Credential{Node: "ai-1", Epoch: 6}, SinceEpoch: 5}
			b.keepEnd(t.Context(), &v1alpha1.AINode{Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: c.epoch, SinceEpoch: c.since, Until: &at}})
			end, _ := b.end.Get()
			require.Equal(t, c.kept, !end.IsZero())
		})
	}
}
