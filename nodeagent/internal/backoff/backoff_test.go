package backoff

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestCrashBackOff(t *testing.T) {
	t.Parallel()
	// A container that ends at once, every time.
	now, known := epoch, (*Crash)(nil)
	var delays []time.Duration
	for attempt := range uint32(8) {
		until, delay, next := AfterCrash(known, attempt, now, now)
		require.Equal(t, now.Add(delay), until)
		delays = append(delays, delay)
		now = until
		remembered := next(now)
		known = &remembered
	}
	require.Equal(t, []time.Duration{
		0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second,
		300 * time.Second, 300 * time.Second,
	}, delays, "at once, then 10 s doubling to 5 minutes")

	t.Run("ten minutes of life start it over", func(t *testing.T) {
		t.Parallel()
		_, delay, next := AfterCrash(&Crash{Delay: crashLast, Restarted: epoch}, 9, epoch, epoch.Add(11*time.Minute))
		require.Zero(t, delay)
		require.Equal(t, crashFirst, next(epoch).Delay)
	})
	t.Run("a new agent rebuilds it from the restart count", func(t *testing.T) {
		t.Parallel()
		for attempt, want := range map[uint32]time.Duration{0: 0, 1: crashFirst, 3: 4 * crashFirst, 6: crashLast, 4_000_000_000: crashLast} {
			_, delay, _ := AfterCrash(nil, attempt, epoch, epoch.Add(time.Second))
			require.Equal(t, want, delay, "attempt %d", attempt)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	require.Equal(t, RetryFirst, Retry(1))
	require.Equal(t, 2*RetryFirst, Retry(2))
	require.Equal(t, RetryLast, Retry(6))
	require.Equal(t, RetryLast, Retry(1_000_000))
}
