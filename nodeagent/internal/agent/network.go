package agent

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/network"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
)

// askAgain is after how long the target is asked again that did not answer an
// address of the pods.
const askAgain = time.Minute

// podNetwork is the network of one binding's pods; without a Network they share the
// machine's address, and there is nothing to do.
type podNetwork struct{ *network.Network }

// place is where the pods' network lies on this machine.
func (t *tenant) place() network.Place {
	return network.Place{BinDir: t.cfg.CNIBinDir, ConfDir: t.cfg.CNIConfDir, LeaseDir: config.LeaseDir, Bridge: network.Bridge}
}

// podNetwork is the one that the binding asks for.
func (t *tenant) podNetwork(target binding.Target) (podNetwork, error) {
	t.answered(nil)
	if target.PodCIDR == "" {
		return podNetwork{}, nil
	}
	r, err := podrange.Parse(target.PodCIDR)
	if err != nil {
		return podNetwork{}, err
	}
	return podNetwork{network.New(network.Options{
		Place: t.place(), Range: r, Address: t.at(target.Address), Runtime: t.runtime.RuntimeService, Clock: t.clock,
	})}, nil
}

func (p podNetwork) own() bool { return p.Network != nil }

func (p podNetwork) mode() crispec.NetworkMode {
	if p.own() {
		return crispec.CNI
	}
	return crispec.Host
}

func (p podNetwork) configure(ctx context.Context) error {
	if p.own() {
		return p.Configure(ctx)
	}
	return nil
}

func (p podNetwork) run(ctx context.Context) error {
	if p.own() {
		return p.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// health adds what is wrong with the network to what is wrong with the machine.
func (p podNetwork) health(h nodestatus.Health) nodestatus.Health {
	if p.own() && h.NotReady == "" {
		h.NotReady = p.Trouble()
	}
	return h
}

// askUntilAnswered asks the target from an address of the pods, tells what came of
// it, and goes on until it answers; then again whenever the pods' way was mended.
func (t *tenant) askUntilAnswered(ctx context.Context, p podNetwork, server string, told func()) error {
	for p.own() && ctx.Err() == nil {
		select {
		case <-p.Repaired(): // the question that follows is about that too
		default:
		}
		answer, err := &binding.Answer{}, p.Ask(ctx, server)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			answer.Trouble = err.Error()
		}
		t.answered(answer)
		told()
		timer := t.clock.NewTimer(askAgain)
		later := timer.C()
		if err == nil {
			later = nil
		}
		select {
		case <-ctx.Done():
		case <-later:
		case <-p.Repaired():
		}
		timer.Stop()
	}
	<-ctx.Done()
	return nil
}

func (t *tenant) answered(answer *binding.Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = answer
}

// PodsAnswered is what came of asking the target from an address of the pods.
func (t *tenant) PodsAnswered() *binding.Answer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answer
}

// withRange has no more pods than the range has addresses: what is one too many
// would wait for ever, where the scheduler could have chosen another node.
func (m measured) withRange(cidr string) measured {
	r, err := podrange.Parse(cidr)
	if err != nil {
		return m // none
	}
	all := measured{capacity: m.capacity.DeepCopy(), allocatable: m.allocatable.DeepCopy()}
	for _, list := range []corev1.ResourceList{all.capacity, all.allocatable} {
		if pods := list[corev1.ResourcePods]; pods.CmpInt64(int64(r.Pods())) > 0 {
			list[corev1.ResourcePods] = *resource.NewQuantity(int64(r.Pods()), resource.DecimalSI)
		}
	}
	return all
}

// resolvConf is the file that names the servers which pods ask. A resolver on the
// machine's own loopback does not answer pods that have another; where it is
// systemd's, the servers behind it stand in a file of their own (the kubelet's
// resolvConf has to be set so by hand).
func resolvConf(mode crispec.NetworkMode, root string) string {
	usual, behind := filepath.Join(root, "etc/resolv.conf"), filepath.Join(root, "run/systemd/resolve/resolv.conf")
	text, err := os.ReadFile(usual)
	if err != nil || mode == crispec.Host {
		return usual
	}
	servers := crispec.ParseResolv(string(text)).Nameservers
	if !slices.ContainsFunc(servers, func(s string) bool { a, err := netip.ParseAddr(s); return err == nil && a.IsLoopback() }) {
		return usual
	}
	if _, err := os.Stat(behind); err != nil {
		return usual
	}
	return behind
}
