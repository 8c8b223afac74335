package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
)

// survey looks at the machine's own addresses: none may lie in the pods' range (but
// the range may be a part of a network that the machine is in). It returns the MTU of
// the way to the cluster, which the pods' packets must fit.
func (n *Network) survey() (mtu int, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list this machine's network interfaces: %w", err)
	}
	mtu = 1500
	for _, link := range links {
		if link.Name == n.o.Bridge {
			continue
		}
		addresses, err := link.Addrs()
		if err != nil {
			continue // gone since it was listed
		}
		for _, address := range addresses {
			prefix, err := netip.ParsePrefix(address.String())
			if err != nil {
				continue
			}
			if n.o.Range.Prefix().Contains(prefix.Addr()) {
				return 0, fmt.Errorf("the pods' range %s holds the address %s of this machine's interface %s (unbind, and bind with another --pod-cidr)",
					n.o.Range, prefix, link.Name)
			}
			// An address on the loopback says nothing of the way out.
			if prefix.Addr().String() == n.o.Address && link.Flags&net.FlagLoopback == 0 {
				mtu = link.MTU
			}
		}
	}
	return mtu, nil
}

// ensureBridge makes the bridge before the first pod is plugged in: without it, what
// is sent to an address of the range that no pod has goes back to the router that
// has sent it, in a circle.
func (n *Network) ensureBridge(mtu int) (*netlink.Bridge, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.o.Bridge, mtu
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, n.bridgeError(err)
	}
	link, err := netlink.LinkByName(n.o.Bridge)
	if err != nil {
		return nil, n.bridgeError(err)
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("this machine has an interface %s that is no bridge (remove it: ip link delete %s)", n.o.Bridge, n.o.Bridge)
	}
	// Set by hand it stays; else it is that of some pod's port, and changes with pods.
	// Made of the gateway's address it is the same again when the bridge is made anew,
	// and the pods that run send their packets there already. One that stands keeps its
	// own: pods would not hear of another for the better part of a minute.
	used, err := hasPorts(bridge)
	if err != nil {
		return nil, n.bridgeError(err)
	}
	address := bridge.HardwareAddr
	if !used || n.plugged != 0 && bridge.Index != n.plugged {
		address = hardwareAddress(n.o.Range.Gateway())
	}
	if err := netlink.LinkSetHardwareAddr(bridge, address); err != nil {
		return nil, n.bridgeError(err)
	}
	own := &net.IPNet{IP: n.o.Range.Gateway().AsSlice(), Mask: net.CIDRMask(n.o.Range.Prefix().Bits(), 32)}
	have, err := netlink.AddrList(bridge, netlink.FAMILY_V4)
	if err != nil {
		return nil, n.bridgeError(err)
	}
	for _, a := range have {
		if a.IPNet.String() != own.String() { // of an earlier binding
			if err := netlink.AddrDel(bridge, &a); err != nil {
				return nil, n.bridgeError(err)
			}
		}
	}
	if err := netlink.AddrReplace(bridge, &netlink.Addr{IPNet: own}); err != nil {
		return nil, n.bridgeError(err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, n.bridgeError(err)
	}
	return bridge, nil
}

// hasPorts reports whether anything is plugged into the bridge.
func hasPorts(bridge *netlink.Bridge) (bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("list the machine's interfaces: %w", err)
	}
	return slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == bridge.Index }), nil
}

// hardwareAddress is a locally administered one (IEEE 802, the second-lowest bit of
// the first byte) that belongs to an IPv4 address alone.
func hardwareAddress(ip netip.Addr) net.HardwareAddr {
	four := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, four[0], four[1], four[2], four[3]}
}

func (n *Network) bridgeError(err error) error {
	return fmt.Errorf("make the bridge %s of the pods: %w (does the kernel have the module bridge?)", n.o.Bridge, err)
}

func (p Place) removeBridge() error {
	link, err := netlink.LinkByName(p.Bridge)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("remove the bridge %s of the pods: %w", p.Bridge, err)
	}
	return nil
}
