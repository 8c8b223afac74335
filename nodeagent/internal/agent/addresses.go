package agent

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ainode/ainode/nodeagent/internal/network"
)

// mostAddresses is how many addresses of a machine are told.
const mostAddresses = 64

// passing are the marks of addresses that do not last: those of IPv6's privacy extensions,
// and such as are not the machine's yet or any more.
const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// addresses are all that the machine has and a cluster might reach, own first: people
// choose of them at bind. That of the pods' bridge is none of them. Those of the loopback
// are: where routes are told by BGP, a machine's address may lie there.
func addresses(own string) []string {
	links, err := netlink.LinkList()
	if err != nil {
		return []string{own}
	}
	up := map[int]bool{}
	for _, link := range links {
		a := link.Attrs()
		up[a.Index] = a.Flags&net.FlagUp != 0 && a.Name != network.Bridge
	}
	found, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return []string{own}
	}
	var all []netip.Addr
	for _, a := range found {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && up[a.LinkIndex] && a.Flags&passing == 0 {
			all = append(all, ip.Unmap())
		}
	}
	return reachable(own, all)
}

// reachable are those of all that are not of one link alone, or of this machine alone; in
// order, so that what is told changes with the machine only.
func reachable(own string, all []netip.Addr) []string {
	slices.SortFunc(all, netip.Addr.Compare)
	told := []string{own}
	for _, a := range slices.Compact(all) {
		if text := a.String(); a.IsGlobalUnicast() && text != own && len(told) < mostAddresses {
			told = append(told, text)
		}
	}
	return told
}
