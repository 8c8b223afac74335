// Package agent wires the rooms of the node agent together: what a machine is, what
// it runs pods with, and the walk through its bindings.
package agent

import (
	"context"
	"crypto/rand"

	"github.com/coreos/go-systemd/v22/daemon"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Run is the agent from start to end: who am I, what have I got, and then the walk
// through bindings until ctx ends. Pods outlive it.
func Run(ctx context.Context, cfg config.Run) error {
	ctx = klog.NewContext(ctx, cri.Quiet(klog.FromContext(ctx)))
	unlock, err := binding.Lock(cfg.StateDir.Lock())
	if err != nil {
		return err
	}
	defer unlock()

	store := binding.Store{State: cfg.StateDir}
	joined, err := store.Joined()
	if err != nil {
		return err
	}
	key, err := store.Key(rand.Reader)
	if err != nil {
		return err
	}
	identity, err := machine.Read("/")
	if err != nil {
		return err
	}
	address, err := nodeAddress(cfg.NodeIP, joined.Server)
	if err != nil {
		return err
	}
	cards, err := openCards(cfg, identity, joined.Node)
	if err != nil {
		return err
	}
	if err := store.SameMachine(joined.Node, machine.Hardware{ProductUUID: identity.ProductUUID, GPUs: cards.Found().UUIDs()}); err != nil {
		return err
	}
	tenant := &tenant{cfg: cfg, node: joined.Node, machine: identity, address: address, clock: clock.RealClock{}}
	if err := tenant.followCards(cards); err != nil {
		return err
	}
	size, err := measure(cfg)
	if err != nil {
		return err
	}
	runtime, err := cri.Connect(ctx, cfg.ContainerRuntimeEndpoint)
	if err != nil {
		return err
	}
	defer func() { _ = runtime.Close(context.WithoutCancel(ctx)) }()

	drivers, err := openDrivers(cfg, joined.Node, identity.BootID)
	if err != nil {
		return err
	}
	tenant.csi = drivers.volumes
	holder := identity.Holder(key.Public.Fingerprint())
	tenant.holder, tenant.size, tenant.runtime = holder, size, runtime
	if tenant.cache, err = tenant.newCache(); err != nil {
		return err
	}
	has := &addresses{own: address, look: look}
	has.refresh(ctx)
	binder, err := binding.New(binding.Options{
		Store: store, Joined: joined, Key: key, Holder: holder,
		Facts:  func() binding.Facts { return facts(identity, has, size, cards, tenant.tracker.Summary().Total) },
		Tenant: tenant, Clock: clock.RealClock{}, FenceAfter: cfg.FenceAfter.Duration,
	})
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Agent runs", "node", joined.Node, "hub", joined.Server, "address", address,
		"gpus", len(cards.Found().Cards), "simulated", cards.Simulated(), "version", Version())
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	return together(ctx, binder.Run, has.run, drivers.volumes.Run, drivers.watcher.Run, func(ctx context.Context) error { tenant.tracker.Run(ctx); return nil })
}
