// Package podrange is the range of addresses that the pods of one AI node have
// where it was bound with one: what such a range must be, and what fits into it.
package podrange

import (
	"fmt"
	"net/netip"
)

// Bits of a range: a wider one is a mistake, a narrower one has room for no pods.
// The record's validation (api/v1alpha1) says the same.
const (
	leastBits = 8
	mostBits  = 29
)

// reserved are the addresses of a range that no pod gets: the network's own, the
// broadcast address, the gateway, and one that the network is tried with.
const reserved = 4

// mostPods bounds Pods: no machine runs more.
const mostPods = 1 << 16

// Range is a range of IPv4 addresses. The zero Range is none.
type Range struct{ prefix netip.Prefix }

// Parse reads a range, for example 10.64.3.0/24. The error says what a range must be.
func Parse(text string) (Range, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return Range{}, fmt.Errorf("%q is no range of addresses such as 10.64.3.0/24", text)
	case !p.Addr().Is4():
		return Range{}, fmt.Errorf("%s is a range of IPv6 addresses; pods of AI nodes have IPv4 addresses", text)
	case p != p.Masked():
		return Range{}, fmt.Errorf("%s is an address in a range; the range itself is %s", text, p.Masked())
	case p.Bits() < leastBits || p.Bits() > mostBits:
		return Range{}, fmt.Errorf("%s is not between /%d and /%d", text, leastBits, mostBits)
	case p.Addr().IsLoopback(), p.Addr().IsMulticast(), p.Addr().IsLinkLocalUnicast(), p.Addr().As4()[0] == 0, p.Addr().As4()[0] > 239:
		return Range{}, fmt.Errorf("%s holds no addresses that pods could have", text)
	}
	return Range{p}, nil
}

// Prefix is the range itself.
func (r Range) Prefix() netip.Prefix { return r.prefix }

// String is the range as it is written; empty for none.
func (r Range) String() string {
	if r.IsZero() {
		return ""
	}
	return r.prefix.String()
}

// IsZero reports whether r is no range.
func (r Range) IsZero() bool { return !r.prefix.IsValid() }

// Gateway is the machine's own address in the range, the first.
func (r Range) Gateway() netip.Addr { return r.prefix.Addr().Next() }

// Pods is how many pods have an address in the range.
func (r Range) Pods() int {
	return min(1<<(32-r.prefix.Bits())-reserved, mostPods)
}
