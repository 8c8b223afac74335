package term

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	cet = time.FixedZone("CET", 3600)
	now = time.Date(2026, 11, 26, 17, 30, 15, 0, cet)
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"":                          {},
		"none":                      {},
		"08:00":                     time.Date(2026, 11, 27, 8, 0, 0, 0, cet),
		"18:00":                     time.Date(2026, 11, 26, 18, 0, 0, 0, cet),
		"17:30":                     time.Date(2026, 11, 27, 17, 30, 0, 0, cet), // 15 seconds ago
		"2026-11-28 08:00":          time.Date(2026, 11, 28, 8, 0, 0, 0, cet),
		"2026-11-28T08:00":          time.Date(2026, 11, 28, 8, 0, 0, 0, cet),
		"2026-11-28T08:00:00Z":      time.Date(2026, 11, 28, 9, 0, 0, 0, cet),
		"2026-11-28T08:00:00-05:00": time.Date(2026, 11, 28, 14, 0, 0, 0, cet),
		"8h":                        now.Add(8 * time.Hour),
		"+8h":                       now.Add(8 * time.Hour),
		"90m":                       now.Add(90 * time.Minute),
		"2d":                        now.Add(48 * time.Hour),
		"+1d12h":                    now.Add(36 * time.Hour),
	} {
		got, err := Parse(text, now)
		require.NoError(t, err, text)
		require.True(t, want.Equal(got), "%s: %s", text, got)
		require.True(t, got.IsZero() || got.Location() == cet, "%s: told in the person's zone", text)
	}
	for _, text := range []string{"8", "25:00", "tomorrow", "2026-13-01 08:00", "8 hours", "99999999999d", "d"} {
		_, err := Parse(text, now)
		require.ErrorContains(t, err, "is no end", text)
	}
}

// Eight in the morning is eight by the clock on the wall, also after a night in which
// it was set.
func TestANightOfAnotherLength(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		berlin = cet // no zone data here: the same without a change
	}
	evening := time.Date(2026, 10, 24, 22, 0, 0, 0, berlin)
	got, err := Parse("08:00", evening)
	require.NoError(t, err)
	require.Equal(t, 8, got.Hour())
	require.Equal(t, 25, got.Day())
}

func TestCheck(t *testing.T) {
	t.Parallel()
	require.NoError(t, Check(now.Add(time.Hour), 30*time.Minute, now))
	require.NoError(t, Check(now.Add(time.Hour), time.Hour, now))
	require.ErrorContains(t, Check(now.Add(-time.Hour), 0, now), "16:30:15 CET is in the past: it is 2026-11-26 17:30 CET now")
	require.ErrorContains(t, Check(now.Add(10*time.Minute), 30*time.Minute, now), "sooner than the drain grace of 30m0s")
	require.Error(t, Check(now.Add(time.Hour), -time.Second, now))
}

func TestWords(t *testing.T) {
	t.Parallel()
	require.Equal(t, "20:00 CET", Words(time.Date(2026, 11, 26, 19, 0, 0, 0, time.UTC), now))
	require.Equal(t, "2026-11-27 08:00 CET", Words(time.Date(2026, 11, 27, 7, 0, 0, 0, time.UTC), now))
	require.Equal(t, "in 3h", In(now.Add(3*time.Hour), now))
	require.Equal(t, "5m ago", In(now.Add(-5*time.Minute), now))
}
