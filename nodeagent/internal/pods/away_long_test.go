//go:build long

package pods

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTheAPIIsAwayForAnHour is longer than a token lives. Whoever is away that long is
// not asked all the time: with a back-off of half a minute for each of a handful of
// watches and statuses.
func TestTheAPIIsAwayForAnHour(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const hour = 61 * time.Minute
	away(m, func(l *line) {
		time.Sleep(hour)
		t.Logf("%d calls were refused in %s", l.refused.Load(), hour)
		require.Less(t, l.refused.Load(), int32(hour/time.Second), "fewer than one a second")
	})
	// The token has expired and could not be renewed: that is told, once. It is renewed soon.
	require.Equal(t, 1, strings.Count(m.events.String(), "FailedMount"), "%s", m.events)
	m.awaitSaid(m.get("steady"), "cat /token/token", "token-2")
	m.end("steady")
}
