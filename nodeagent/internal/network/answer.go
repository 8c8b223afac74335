package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/api/contract"
)

// trial is the sandbox that a pod's network is tried with. It has no epoch, so that
// nobody takes it for a pod's.
const trial = "ainode-network-trial"

// answerPatience is how long an answer may take.
const answerPatience = 5 * time.Second

// ErrNoAnswer says that nothing came back to an address of the pods.
var ErrNoAnswer = errors.New("no answer")

// Ask sends a packet from where a pod would be to server (a URL), and returns nil
// if an answer came back: then the range is routed to this machine and from the
// bridge on, and no firewall lies between; ErrNoAnswer if none did. It makes a
// sandbox without any container for that, and takes it away.
func (n *Network) Ask(ctx context.Context, server string) error {
	to, err := resolve(ctx, server)
	if err != nil {
		return err
	}
	if err := endTrials(ctx, n.o.Runtime); err != nil {
		return err
	}
	id, err := n.o.Runtime.RunPodSandbox(ctx, &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: trial, Namespace: contract.SystemNamespace, Uid: trial},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{},
	}, "")
	if err != nil {
		return fmt.Errorf("make a sandbox to try the pods' network with: %w", err)
	}
	defer func() { _ = endTrials(context.WithoutCancel(ctx), n.o.Runtime) }()
	answer, err := n.o.Runtime.PodSandboxStatus(ctx, id, true)
	if err != nil {
		return fmt.Errorf("look at the sandbox that the pods' network is tried with: %w", err)
	}
	own := answer.GetStatus().GetNetwork().GetIp()
	if addr, err := netip.ParseAddr(own); err != nil || !n.o.Range.Prefix().Contains(addr) {
		return fmt.Errorf("a sandbox got the address %q, which is none of %s", own, n.o.Range)
	}
	pid, err := processOf(answer)
	if err != nil {
		return err
	}
	err = inside(pid, func() error { return dial(ctx, to) })
	if err != nil {
		return fmt.Errorf("%w from %s to %s, an address of the pods: %w", ErrNoAnswer, to, own, err)
	}
	return nil
}

// endTrials takes away the sandboxes of trials, of one that was cut off too.
func endTrials(ctx context.Context, service criapi.RuntimeService) error {
	all, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list the runtime's sandboxes: %w", err)
	}
	for _, s := range all {
		if s.GetMetadata().GetUid() != trial {
			continue
		}
		err := service.StopPodSandbox(ctx, s.Id)
		if err == nil {
			err = service.RemovePodSandbox(ctx, s.Id)
		}
		if err != nil {
			return fmt.Errorf("take away the sandbox that the pods' network was tried with: %w", err)
		}
	}
	return nil
}

// resolve is the address and port of a server's URL. A name is looked up where the
// machine is, not where the pods are.
func resolve(ctx context.Context, server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("find the target's address: %w", err)
	}
	addresses, err := net.DefaultResolver.LookupIP(ctx, "ip4", u.Hostname())
	if err != nil {
		return "", fmt.Errorf("find the target's address: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(addresses[0].String(), port), nil
}

// dial connects; a refusal is an answer too.
func dial(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", to)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	case err != nil:
		return err
	}
	return conn.Close()
}

// inside runs do in the network namespace of a process. do must make its sockets
// itself: other goroutines stay outside.
func inside(pid int, do func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else gets it.
		runtime.LockOSThread()
		namespace, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err == nil {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
			_ = namespace.Close()
		}
		if err != nil {
			result <- fmt.Errorf("enter the sandbox's network: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}
