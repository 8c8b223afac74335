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
	"time"

	"github.com/vishvananda/netlink"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

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
	logger := klog.FromContext(ctx)
	for _, l := range leases {
		at := slices.IndexFunc(sandboxes, func(s *runtimeapi.PodSandbox) bool { return s.Id == l.sandbox })
		switch {
		case at < 0: // in the making, maybe, and a port of the bridge that was: it is looked at again
			complete = false
		case sandboxes[at].State == runtimeapi.PodSandboxState_SANDBOX_READY:
			port, err := n.loosePort(ctx, l)
			if err != nil { // a matter of that pod alone
				logger.Error(err, "It is not known whether a pod is plugged into the bridge, and is looked at again", "address", l.address, "bridge", bridge.Name)
				complete = false
			}
			if port == nil {
				continue
			}
			if err := netlink.LinkSetMaster(port, bridge); err == nil {
				n.tellRepaired()
			} else if !errors.Is(err, syscall.ENODEV) {
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

// looksWithin is how long the runtime may take to tell of one sandbox: a shim that hangs
// takes all the time that it is given.
const looksWithin = 5 * time.Second

// loosePort is the host's end of a pod's veth that is no port of any bridge; nil if it is
// one. A pod that ends meanwhile has none.
func (n *Network) loosePort(ctx context.Context, l lease) (netlink.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, looksWithin)
	defer cancel()
	answer, err := n.o.Runtime.PodSandboxStatus(ctx, l.sandbox, true)
	if cri.IsNotFound(err) || err == nil && answer.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at its sandbox: %w", err)
	}
	pid, err := processOf(answer)
	if err != nil {
		return nil, err
	}
	var within netlink.Link
	err = inside(pid, func() error {
		var err error
		within, err = ownLink(l)
		return err
	})
	var gone netlink.LinkNotFoundError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &gone) {
		return nil, nil
	}
	if err != nil || within == nil {
		return nil, err
	}
	outside, err := netlink.LinkByIndex(within.Attrs().ParentIndex)
	if errors.As(err, &gone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, veth := outside.(*netlink.Veth)
	if !veth || outside.Attrs().ParentIndex != within.Attrs().Index || outside.Attrs().MasterIndex != 0 {
		return nil, nil // not our pod's, or a port that somebody has put elsewhere
	}
	return outside, nil
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
