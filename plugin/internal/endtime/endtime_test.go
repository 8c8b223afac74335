package endtime

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
		"none":                      {},
		"NONE":                      {},
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

// What is nearly an end is refused with the reason, and with what to write, which is taken.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ why, write string }{
		"24:00":                    {"a day ends with 00:00 of the next", "00:00"},
		"2026-12-31 24:00":         {"a day ends with 00:00 of the next", "2027-01-01T00:00"},
		"2026-12-31T24:00:00":      {"a day ends with 00:00 of the next", "2027-01-01T00:00"},
		"2026-11-28":               {"it says no time of that day", "2026-11-28T08:00"},
		"08:00 CET":                {"a zone is written as an offset", "2026-11-27T08:00:00+01:00"},
		"18:00Z":                   {"without one the time is yours (CET)", "2026-11-26T18:00:00Z"},
		"2026-11-28 8:00 PST":      {"a zone is written as an offset", "2026-11-28T08:00:00+01:00"},
		"2026-11-28T08:00Z":        {"a zone is written as an offset", "2026-11-28T08:00:00Z"},
		"2026-11-28 08:00:30-0500": {"a zone is written as an offset", "2026-11-28T08:00:30-05:00"},
		"2026-11-28 08:00 UTC":     {"a zone is written as an offset", "2026-11-28T08:00:00Z"},
		"08:00 Europe/Berlin":      {"a zone is written as an offset", "2026-11-27T08:00:00+01:00"},
		"":                         {"it is empty", "none"},
		"tomorrow":                 {"is no end", "none"},
		"8:00 pm":                  {"is no end", "none"},
		"1d-5h":                    {"is no end", "none"},
		"10000d2562047h":           {"is no end", "none"}, // more than a duration holds
	} {
		_, err := Parse(text, now)
		require.ErrorContains(t, err, want.why, text)
		require.ErrorContains(t, err, want.write, text)
		_, err = Parse(want.write, now)
		require.NoError(t, err, text)
	}
}

func TestParseGrace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"30m": 30 * time.Minute, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "0": 0, "0d": 0, "0s": 0, " 90s ": 90 * time.Second} {
		got, err := ParseGrace(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		"": "it is empty: write a span (90s, 30m, 2d)", "-5m": "is negative", "-1d": "is negative",
		"1w": "is no span: write one as in 90s, 30m, 8h or 2d", "30": "is no span", "--5m": "is no span", "-": "is no span", "none": "is no span",
	} {
		_, err := ParseGrace(text)
		require.ErrorContains(t, err, want, text)
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
	// A clock stands between two seconds, a record's end does not.
	between := now.Add(700 * time.Millisecond)
	until, err := Parse("30m", between)
	require.NoError(t, err)
	require.NoError(t, Check(until, 30*time.Minute, between))
}

func TestWords(t *testing.T) {
	t.Parallel()
	require.Equal(t, "20:00 CET", Words(time.Date(2026, 11, 26, 19, 0, 0, 0, time.UTC), now))
	require.Equal(t, "2026-11-27 08:00 CET", Words(time.Date(2026, 11, 27, 7, 0, 0, 0, time.UTC), now))
	require.Equal(t, "in 3h", In(now.Add(3*time.Hour), now))
	require.Equal(t, "pods are evicted from 17:20 CET on", Drains(now.Truncate(time.Hour).Add(50*time.Minute), 30*time.Minute, now.Truncate(time.Hour)))
	require.NotContains(t, Drains(now.Add(time.Hour), 0, now), "18:30", "nobody is sent away before the end")
	require.Equal(t, "5m ago", In(now.Add(-5*time.Minute), now))
}
