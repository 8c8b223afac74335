package kubeletapi

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// An address that is not the machine's, now, keeps nothing from running; a port that
// another one has does.
func TestListenWhereTheAddressIsGone(t *testing.T) {
	t.Parallel()
	gone := []string{"192.0.2.1:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // the machine has IPv6 at all
		require.NoError(t, l.Close())
		gone = append(gone, "[2001:db8::1]:0")
	}
	for _, address := range gone {
		l, err := (&Server{o: Options{Address: address}}).Listen(t.Context())
		require.NoError(t, err)
		_, err = (&Server{o: Options{Address: l.Addr().String()}}).Listen(t.Context())
		require.ErrorContains(t, err, "is a kubelet or another agent running on this machine?")
		require.NoError(t, l.Close())
	}
}
