package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// forwardPath says whether the kernel forwards IPv4 packets (1) or not (0).
const forwardPath = "/proc/sys/net/ipv4/ip_forward"

// forward has the kernel forward packets. The bridge plugin does so only when it
// makes a sandbox, and hardening scripts undo it.
func (n *Network) forward() error {
	now, err := os.ReadFile(forwardPath)
	if err == nil && strings.TrimSpace(string(now)) != "0" {
		return nil
	}
	if err == nil {
		err = os.WriteFile(forwardPath, []byte("1"), 0) // it is there
	}
	if err != nil {
		return fmt.Errorf("have the kernel forward the pods' packets: %w (sysctl -w net.ipv4.ip_forward=1)", err)
	}
	n.tellRepaired()
	return nil
}

// plug makes the pods that run ports of the bridge, if it is another one than they
// were ports of: somebody deleted that, which leaves their interfaces without any, and
// we made a new one, or the bridge plugin did for the next pod.
func (n *Network) plug(ctx context.Context, bridge *netlink.Bridge) error {
	if bridge.Index == n.plugged {
		return nil
	}
	leases, err := n.o.leases()
	if err != nil {
		return err
	}
	sandboxes, err := n.o.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the runtime's sandboxes: %w", err)
	}
	complete := true
	var errs []error
	for _, l := range leases {
		at := slices.IndexFunc(sandboxes, func(s *runtimeapi.PodSandbox) bool { return s.Id == l.sandbox })
		switch {
		case at < 0: // in the making, maybe, and a port of the bridge that was: it is looked at again
			complete = false
		case sandboxes[at].State == runtimeapi.PodSandboxState_SANDBOX_READY:
			if err := n.plugOne(ctx, l, bridge); err != nil {
				errs = append(errs, fmt.Errorf("plug the pod with address %s into the bridge %s again: %w", l.address, bridge.Name, err))
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if complete {
		if n.plugged != 0 {
			n.tellRepaired()
		}
		n.plugged = bridge.Index
	}
	return nil
}

// plugOne makes the host's end of a pod's veth a port of the bridge, unless it is a
// port already. A pod that ends meanwhile needs none.
func (n *Network) plugOne(ctx context.Context, l lease, bridge *netlink.Bridge) error {
	answer, err := n.o.Runtime.PodSandboxStatus(ctx, l.sandbox, true)
	if cri.IsNotFound(err) || err == nil && answer.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at its sandbox: %w", err)
	}
	pid, err := processOf(answer)
	if err != nil {
		return err
	}
	var within netlink.Link
	err = inside(pid, func() error {
		var err error
		within, err = ownLink(l)
		return err
	})
	var gone netlink.LinkNotFoundError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &gone) {
		return nil
	}
	if err != nil || within == nil {
		return err
	}
	outside, err := netlink.LinkByIndex(within.Attrs().ParentIndex)
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	_, veth := outside.(*netlink.Veth)
	if !veth || outside.Attrs().ParentIndex != within.Attrs().Index || outside.Attrs().MasterIndex != 0 {
		return nil // not our pod's, or a port that somebody has put elsewhere
	}
	if err := netlink.LinkSetMaster(outside, bridge); err != nil && !errors.Is(err, syscall.ENODEV) {
		return err
	}
	n.tellRepaired()
	return nil
}

// ownLink is the interface that the lease was taken for, in the network namespace of
// the thread; nil if another one has its name, as in the namespace of a process that
// has the sandbox's number since it ended.
func ownLink(l lease) (netlink.Link, error) {
	link, err := netlink.LinkByName(l.link)
	if err != nil {
		return nil, err
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().String() == l.address {
			return link, nil
		}
	}
	return nil, nil
}

// processOf is the number of a sandbox's own process.
func processOf(answer *runtimeapi.PodSandboxStatusResponse) (int, error) {
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(answer.GetInfo()["info"]), &info); err != nil || info.Pid == 0 {
		return 0, errors.New("the runtime does not tell the process of a sandbox, so its network can't be entered")
	}
	return info.Pid, nil
}
