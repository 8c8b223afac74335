package nodes

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Neighbours are the addresses of a cluster's other nodes. What is expected of a
// machine's address is told by them: no API says which networks a cluster reaches.
func Neighbours(members []corev1.Node, name string) []netip.Addr {
	var all []netip.Addr
	for _, n := range members {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && n.Name != name {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all
}

// far reports whether an address is in the /16 (of IPv6: the /48) of none of the others, of
// which there are some: one network is seldom wider, VPCs are as a rule not. Many clusters
// reach machines beyond that, by peering or a VPN, so that it proves nothing. It is told
// where nothing has tried yet whether the machine can be reached, or that has failed.
func far(addr netip.Addr, others []netip.Addr) bool {
	bits := 16
	if addr.Is6() {
		bits = 48
	}
	network, err := addr.Prefix(bits)
	return err == nil && len(others) > 0 && !slices.ContainsFunc(others, network.Contains)
}

// FarOff says in brackets that an address is far from all others, where it is.
func FarOff(address string, others []netip.Addr) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || !far(addr, others) {
		return ""
	}
	return fmt.Sprintf(" (far from the cluster's other nodes, such as %s)", others[0])
}
