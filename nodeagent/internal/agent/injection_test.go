package agent

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Until the runtime was heard, it may be one that gives all cards to who asks for none,
// and one that gives none to who asks.
func TestInjectionBeforeTheRuntimeWasHeard(t *testing.T) {
	t.Parallel()
	unheard := (&tenant{}).injects()
	require.False(t, unheard.Injects())
	require.True(t, unheard.ByDefault)
}
