package term

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var eight = time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)

func TestStages(t *testing.T) {
	t.Parallel()
	half, long := End{eight, 30 * time.Minute}, End{eight, 90 * time.Minute}
	for name, c := range map[string]struct {
		end  End
		now  time.Time
		want Stage
		next time.Duration
	}{
		"no end":                       {End{}, eight, Open, 0},
		"far away":                     {half, eight.Add(-3 * time.Hour), Open, 2 * time.Hour},
		"61 minutes before":            {half, eight.Add(-61 * time.Minute), Open, time.Minute},
		"an hour before":               {half, eight.Add(-time.Hour), Announced, 30 * time.Minute},
		"draining":                     {half, eight.Add(-30 * time.Minute), Draining, 30 * time.Minute},
		"a second before":              {half, eight.Add(-time.Second), Draining, time.Second},
		"over":                         {half, eight, Over, 0},
		"slept over it":                {half, eight.Add(time.Hour), Over, 0},
		"a grace longer than the hour": {long, eight.Add(-80 * time.Minute), Draining, 80 * time.Minute},
		"before such a grace":          {long, eight.Add(-2 * time.Hour), Open, 20 * time.Minute},
		"told before such a grace":     {long, eight.Add(-95 * time.Minute), Announced, 5 * time.Minute},
		"no grace":                     {End{eight, 0}, eight.Add(-time.Second), Announced, time.Second},
		"another zone":                 {End{eight.In(time.FixedZone("CET", 3600)), 0}, eight, Over, 0},
	} {
		require.Equal(t, c.want, c.end.Stage(c.now), name)
		if c.end.IsZero() {
			continue
		}
		require.Equal(t, c.next, c.end.next(c.now), name)
	}
}

// A pod is told in time to be over at the end, within its own grace.
func TestWhenAPodMustEnd(t *testing.T) {
	t.Parallel()
	end := End{eight, 10 * time.Minute}
	pod := func(grace *int64) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: grace}}
	}
	require.Equal(t, eight.Add(-30*time.Second), end.endOf(pod(nil)))
	require.Equal(t, eight.Add(-2*time.Minute), end.endOf(pod(ptr.To[int64](120))))
	require.Equal(t, eight, end.endOf(pod(ptr.To[int64](0))))
	require.Equal(t, eight.Add(-10*time.Minute), end.endOf(pod(ptr.To[int64](3600))), "an hour's grace is cut: draining had ten minutes")

	deleted := func(at time.Time, grace int64) *corev1.Pod {
		p := pod(&grace)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = ptr.To(metav1.NewTime(at.Add(time.Duration(grace)*time.Second))), &grace
		return p
	}
	require.Equal(t, eight, end.endOf(deleted(eight.Add(-5*time.Minute), 60)), "evicted, and over in time by itself")
	late := deleted(eight.Add(-5*time.Minute), 600)
	require.Equal(t, end.drain(), end.endOf(late), "its own grace goes beyond the end")
}

func TestClocksThatAgree(t *testing.T) {
	t.Parallel()
	require.True(t, Agree(eight, eight.Add(2*time.Minute)))
	require.False(t, Agree(eight, eight.Add(-2*time.Minute-time.Second)))
	require.False(t, Agree(eight, eight.Add(2*time.Minute+time.Second)))
}
