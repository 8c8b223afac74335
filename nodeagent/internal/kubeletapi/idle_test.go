package kubeletapi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Of what lies between the client and the runtime's streaming server only this server
// could have a timeout: the proxy copies bytes and knows no time. What the runtime itself
// does in an hour, make test-long waits for.
func TestNothingHereCutsAnIdleStream(t *testing.T) {
	t.Parallel()
	server := (&Server{}).server(t.Context())
	require.Zero(t, server.ReadTimeout)
	require.Zero(t, server.WriteTimeout)
}
