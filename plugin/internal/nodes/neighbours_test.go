package nodes

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNeighbourhood(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr
	four, six := []netip.Addr{ip("10.1.2.3"), ip("10.2.0.9")}, []netip.Addr{ip("fd00:1:2::3")}
	require.False(t, far(ip("10.2.255.1"), four))
	require.True(t, far(ip("10.3.0.1"), four))
	require.False(t, far(ip("fd00:1:2:ff::1"), six))
	require.True(t, far(ip("fd00:1:3::1"), six))
	require.False(t, far(ip("10.3.0.1"), nil), "of nobody")

	member := func(name, kind, address string) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeAddressType(kind), Address: address}},
		}}
	}
	require.Equal(t, []netip.Addr{ip("10.1.2.3")}, Neighbours([]corev1.Node{
		member("a", "InternalIP", "::ffff:10.1.2.3"), member("b", "ExternalIP", "1.2.3.4"), member("c", "InternalIP", "c"), member("ai-1", "InternalIP", "10.9.0.5"),
	}, "ai-1"))
}
