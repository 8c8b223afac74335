package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/network"
)

// mostAddresses is how many addresses of a machine are told.
const mostAddresses = 64

// How often a machine's addresses are looked up: no oftener than they are told.
const (
	lookPeriod = 10 * time.Second
	lookTries  = 5
)

// passes reports whether an address does not last: it is one of IPv6's privacy extensions,
// or not the machine's yet or any more. (Of IPv4 the first mark says that an address is not
// the first of its subnet, IFA_F_SECONDARY.)
func passes(ip netip.Addr, flags int) bool {
	marks := unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	if ip.Is6() {
		marks |= unix.IFA_F_TEMPORARY
	}
	return flags&marks != 0
}

// addresses are the machine's, as they were found last. Whoever tells of them must not have
// to wait for the kernel, which has many to list where there are many pods.
type addresses struct {
	own  string // the one that the agent chooses
	look func() (found, error)

	mu   sync.Mutex
	last *found // nil while it is not known
}

// found are a machine's addresses: all that it has now, and those that last.
type found struct{ all, lasting []netip.Addr }

func (a *addresses) run(ctx context.Context) error {
	wait.UntilWithContext(ctx, a.refresh, lookPeriod)
	return nil
}

// refresh looks again. What pods' links that come and go have cut short counts for nothing:
// it would tell that addresses are gone which are there.
func (a *addresses) refresh(ctx context.Context) {
	var now found
	var err error
	for range lookTries {
		if now, err = a.look(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "This machine's addresses can't be listed, what was found before stands")
		return
	}
	a.mu.Lock()
	a.last = &now
	a.mu.Unlock()
}

// reachable are all that a cluster might reach, own first: people choose of them at bind.
func (a *addresses) reachable() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		return []string{a.own}
	}
	return reachable(a.own, slices.Clone(a.last.lasting))
}

// lacks reports whether the machine is known not to have an address.
func (a *addresses) lacks(address string) bool {
	ip, err := netip.ParseAddr(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	return err == nil && a.last != nil && !ip.IsLoopback() && !slices.Contains(a.last.all, ip.Unmap().WithZone(""))
}

// look asks the kernel. Of those that last, that of the pods' bridge is none. Those of the
// loopback are: where routes are told by BGP, a machine's address may lie there.
func look() (found, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return found{}, fmt.Errorf("list links: %w", err)
	}
	up := map[int]bool{}
	for _, link := range links {
		a := link.Attrs()
		up[a.Index] = a.Flags&net.FlagUp != 0 && a.Name != network.Bridge
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return found{}, fmt.Errorf("list addresses: %w", err)
	}
	var now found
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		now.all = append(now.all, ip)
		if up[a.LinkIndex] && !passes(ip, a.Flags) {
			now.lasting = append(now.lasting, ip)
		}
	}
	return now, nil
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
