package agent

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/csinode"
	"github.com/ainode/ainode/nodeagent/internal/podresources"
)

// Serve registers the Node, then looks after it, its pods and its kubelet API until
// ctx ends or one of them fails.
func (t *tenant) Serve(ctx context.Context, target binding.Target, registered func()) error {
	// One rate for each of them: a storm of events, or of strangers' tokens at :10250,
	// must keep neither pods nor the Lease waiting.
	clients, err := clientsOf(target.Config)
	if err != nil {
		return err
	}
	t.askInjection(ctx)
	network, err := t.podNetwork(target)
	if err != nil {
		return err
	}
	node, pressure, err := t.newNode(ctx, target, clients, network)
	if err != nil {
		return err
	}
	if err := t.enter(ctx, node, network); err != nil {
		return err
	}
	recorder, stopRecorder := t.newRecorder(ctx, clients.events, node)
	defer stopRecorder()
	t.tellNode(recorder)
	defer t.tellNode(nil)

	if err := t.cache.Open(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "What pods read from buckets is not cached")
	}
	rooms, err := t.newPods(clients.pods, node.Node, target.Since, network.mode(), t.at(target.Address), recorder, pressure.admit,
		func() bool { return node.Ours() && !target.Refused() })
	if err != nil {
		return err
	}
	meter := t.newMeter(rooms)
	all, err := t.keepers(ctx, node, pressure, rooms, meter, recorder)
	if err != nil {
		return err
	}
	api, err := t.newAPI(ctx, target, clients, rooms, meter)
	if err != nil {
		return err
	}
	defer api.close()
	registered()

	if socket := t.cfg.PodResourcesSocket; socket != "" {
		all = append(all, func(ctx context.Context) error { return podresources.Serve(ctx, socket, rooms, t.tracker) })
	}
	drivers := &csinode.Keeper{Client: clients.pods, Node: node.Node, Drivers: t.csi.Drivers(), Clock: t.clock}
	asking := func(ctx context.Context) error {
		return t.askUntilAnswered(ctx, network, target.Config.Host, registered)
	}
	return together(ctx, append(all, node.Run, rooms.Run, rooms.services.Run, network.run, drivers.Run, asking, api.run)...)
}
