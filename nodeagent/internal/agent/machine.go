package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/version"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// behaves is the release whose kubelet this agent behaves like, reported where
// the build has set no version.
const behaves = "v1.37.2-ainode.dev"

// KubeletVersion is the kubeletVersion of the Node.
func KubeletVersion() string {
	if v := version.Get().GitVersion; strings.Contains(v, "-ainode") {
		return v
	}
	return behaves
}

// Version is the agent's own.
func Version() string {
	_, own, _ := strings.Cut(KubeletVersion(), "-ainode.")
	return own
}

// nodeAddress is the given address, or that from which the hub is reached.
func nodeAddress(given, hub string) (string, error) {
	if given != "" {
		return given, nil
	}
	u, err := url.Parse(hub)
	if err != nil {
		return "", fmt.Errorf("find this machine's address: the hub's URL: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	// Nothing is sent: connecting a UDP socket only asks the routing table.
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return "", fmt.Errorf("find this machine's address (or give it with --node-ip): %w", err)
	}
	defer func() { _ = conn.Close() }()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok || local.IP.IsLoopback() {
		return "", errors.New("the hub is reached by loopback, so this machine's address can't be told from it (give it with --node-ip)")
	}
	return local.IP.String(), nil
}

// measured is what the machine has, and what of it pods may have; cards, which come and
// go, are counted apart.
type measured struct {
	capacity, allocatable corev1.ResourceList
}

// measure reads the machine's size; in simulation what was claimed replaces it.
func measure(cfg config.Run) (measured, error) {
	thresholds, err := eviction.Parse(cfg.EvictionHard)
	if err != nil {
		return measured{}, fmt.Errorf("read --eviction-hard: %w", err)
	}
	if err := os.MkdirAll(string(cfg.StateDir), 0o700); err != nil {
		return measured{}, fmt.Errorf("make state directory: %w", err)
	}
	size, err := machine.Measure("/", string(cfg.StateDir))
	if err != nil {
		return measured{}, err
	}
	for _, claimed := range []struct {
		text string
		to   *resource.Quantity
	}{{cfg.SimulateCPU, &size.CPU}, {cfg.SimulateMemory, &size.Memory}} {
		if claimed.text == "" {
			continue
		}
		if *claimed.to, err = resource.ParseQuantity(claimed.text); err != nil {
			return measured{}, fmt.Errorf("read the simulated amount %q: %w", claimed.text, err)
		}
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              size.CPU,
		corev1.ResourceMemory:           size.Memory,
		corev1.ResourceEphemeralStorage: size.Storage,
		corev1.ResourcePods:             *resource.NewQuantity(int64(cfg.MaxPods), resource.DecimalSI),
	}
	return measured{capacity: capacity, allocatable: allocatable(capacity, thresholds)}, nil
}

// allocatable is what pods may have of a capacity: all but what they are evicted for, or
// those that keep to their requests would be. As on a kubelet, where the images' disk
// counts for nothing (pkg/kubelet/cm, hardEvictionReservation).
func allocatable(capacity corev1.ResourceList, thresholds eviction.Thresholds) corev1.ResourceList {
	list := capacity.DeepCopy()
	for name, signal := range map[corev1.ResourceName]eviction.Signal{
		corev1.ResourceMemory: eviction.MemoryAvailable, corev1.ResourceEphemeralStorage: eviction.NodeFsAvailable,
	} {
		left := list[name]
		left.Sub(*resource.NewQuantity(min(thresholds.Kept(signal, left.Value()), left.Value()), resource.BinarySI))
		list[name] = left
	}
	return list
}

// with is list and so many cards and slices.
func with(list corev1.ResourceList, devices map[corev1.ResourceName]int) corev1.ResourceList {
	list = maps.Clone(list)
	if list == nil {
		list = corev1.ResourceList{}
	}
	for name, n := range devices {
		list[name] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	}
	return list
}

// facts are what the hub is told of this machine.
func facts(id machine.Identity, at *addresses, size measured, cards *gpu.Machine, total map[corev1.ResourceName]int) binding.Facts {
	f := binding.Facts{
		Address: at.own, Addresses: at.reachable(), Lacks: at.lacks, Simulated: cards.Simulated(), AgentVersion: Version(),
		Machine:  v1alpha1.Machine{ID: id.ID, ProductUUID: id.ProductUUID, BootID: id.BootID},
		Capacity: map[string]resource.Quantity{},
	}
	for name, q := range with(size.capacity, total) {
		f.Capacity[string(name)] = q
	}
	for _, c := range cards.Found().Cards {
		card := v1alpha1.GPU{
			UUID: c.UUID, Index: int32(c.Index), Product: c.Product, MIG: c.MIG,
			Memory: *resource.NewQuantity(int64(c.MemoryBytes), resource.BinarySI),
		}
		for _, s := range c.Slices {
			card.Slices = append(card.Slices, v1alpha1.GPUSlice{UUID: s.UUID, Profile: s.Profile})
		}
		f.GPUs = append(f.GPUs, card)
	}
	return f
}
