// Package network gives each pod an address of its own, from the range that the
// machine was bound with (network mode cni): the container runtime's CNI
// configuration, the bridge that pods are plugged into, and what is left of both.
//
// Nothing is translated: the cluster routes the range to the machine, and pods are
// seen by their own address wherever they go. It is also how far they get: whatever
// is to answer them needs a route back, or a translating router before it.
package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	criapi "k8s.io/cri-api/pkg/apis"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/podrange"
)

// Bridge is the default of Options.Bridge.
const Bridge = "ainode0"

// Plugins are the CNI plugins that the runtime needs.
var Plugins = []string{"bridge", "host-local", "loopback"}

const (
	// keepEvery is how often what was configured is looked at again.
	keepEvery = time.Minute
	// loadPatience is how long the runtime may take to read a new configuration.
	loadPatience = 15 * time.Second
)

// Place is where on the machine a pod network lies.
type Place struct {
	// BinDir has the CNI plugins, ConfDir the runtime's CNI configurations.
	BinDir, ConfDir string
	// LeaseDir holds the addresses that are taken. It must not outlive a boot, like
	// the network namespaces that they are taken by.
	LeaseDir string
	// Bridge is the name of the bridge.
	Bridge string
}

// Options are what New needs. All are required.
type Options struct {
	Place
	Range podrange.Range
	// Address is the machine's own, as the cluster reaches it.
	Address string
	Runtime criapi.RuntimeService
	Clock   clock.WithTicker
}

// Network is the pod network of one binding.
type Network struct {
	o Options
	// orphans are leases that no sandbox had when they were looked at last, and since
	// when. Run's goroutine only.
	orphans map[lease]time.Time
	// plugged is the index of the bridge that the pods of the machine are known to be
	// ports of. Configure's caller only.
	plugged int
	// repaired holds a value since the way of the pods' packets was mended.
	repaired chan struct{}

	mu      sync.Mutex
	trouble error
}

// New makes a Network; it touches nothing yet.
func New(o Options) *Network { return &Network{o: o, repaired: make(chan struct{}, 1)} }

// Repaired gets a value when Configure has mended the way that pods' packets go, and
// pods may be reached from where they were not. Several mends may be one value.
func (n *Network) Repaired() <-chan struct{} { return n.repaired }

// tellRepaired never waits: what is not taken yet says the same.
func (n *Network) tellRepaired() {
	select {
	case n.repaired <- struct{}{}:
	default:
	}
}

// Configure makes the network, or what is missing of it, and returns when the
// runtime has taken it over. The error says what is missing on the machine, and how
// to mend that.
func (n *Network) Configure(ctx context.Context) error {
	err := n.configure(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble = err
	return err
}

func (n *Network) configure(ctx context.Context) error {
	if err := n.pluginsThere(); err != nil {
		return err
	}
	mtu, err := n.survey()
	if err != nil {
		return err
	}
	bridge, err := n.ensureBridge(mtu)
	if err != nil {
		return err
	}
	if err := n.forward(); err != nil {
		return err
	}
	if err := n.plug(ctx, bridge); err != nil {
		return err
	}
	if err := n.writeConflist(mtu); err != nil {
		return err
	}
	return n.awaitLoaded(ctx)
}

// Trouble is what the last look found wrong; empty if nothing.
func (n *Network) Trouble() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.trouble == nil {
		return ""
	}
	return n.trouble.Error()
}

// Run puts back what somebody takes away, and frees addresses that are nobody's any
// more, until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	ticker := n.o.Clock.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		if err := n.Sweep(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Addresses of pods that are gone not freed")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
		if err := n.Configure(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The pods' network is not as it should be")
		}
	}
}

// Missing are those of Plugins that are not in the folder of CNI plugins.
func Missing(binDir string) []string {
	var missing []string
	for _, plugin := range Plugins {
		info, err := os.Stat(filepath.Join(binDir, plugin))
		if err != nil || info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			missing = append(missing, plugin)
		}
	}
	return missing
}

// pluginsThere names the CNI plugins that are missing.
func (n *Network) pluginsThere() error {
	missing := Missing(n.o.BinDir)
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("pods can't have addresses of their own: the CNI plugins %s are missing in %s (install containernetworking-plugins, "+
		"which some distributions put into /usr/lib/cni, and name the folder to the agent with --cni-bin-dir and to the runtime in its own configuration)",
		strings.Join(missing, ", "), n.o.BinDir)
}

// Remove takes away what Configure has made: for a machine that is bound no more
// and runs no pods. It is idempotent and works without a Network: what stands may
// be of an earlier life.
func (p Place) Remove(ctx context.Context, service criapi.RuntimeService) error {
	return errors.Join(
		endTrials(ctx, service),
		p.removeConflist(),
		p.removeBridge(),
		os.RemoveAll(p.LeaseDir),
	)
}
