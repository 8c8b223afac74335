package story

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/handover"
)

// outdated is a join file whose time is over.
func outdated(t *testing.T, text string) string {
	t.Helper()
	join, err := handover.DecodeJoin(text, time.Now())
	require.NoError(t, err)
	join.Expires = time.Now().Add(-time.Minute)
	line, err := join.Encode()
	require.NoError(t, err)
	return line
}
