package agent

import (
	"context"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
)

// newNode makes the Node of a binding, which says of itself what is the matter with the
// machine, and what it says that by.
func (t *tenant) newNode(ctx context.Context, target binding.Target, c clients, network podNetwork) (*nodestatus.Registrar, *pressure, error) {
	facts, err := t.nodeFacts(ctx, target)
	if err != nil {
		return nil, nil, err
	}
	node := &nodestatus.Registrar{
		Client: c.pods, Heartbeat: c.heartbeat, Facts: facts, Clock: t.clock, GPUsChanged: t.cardNews,
		VolumesInUse: t.csi.InUse, VolumesChanged: t.csi.Changed(),
	}
	pressure, err := t.newPressure(node.Node, t.newTerm(target, c.pods, node.Node))
	if err != nil {
		return nil, nil, err
	}
	node.Probe = func(ctx context.Context) nodestatus.Health { return t.health(ctx, pressure, network) }
	return node, pressure, nil
}

// enter readies the pods' network, and registers the Node if that has not been done.
// Before the first registration of a binding nothing may be done in the node's name: it
// could be somebody else's. After it, pods come first: they are looked after though the
// target does not answer.
func (t *tenant) enter(ctx context.Context, node *nodestatus.Registrar, network podNetwork) error {
	_, err := os.Stat(t.cfg.StateDir.Registered())
	first := err != nil
	if err := network.configure(ctx); err != nil {
		if first {
			return err
		}
		klog.FromContext(ctx).Error(err, "The pods' network is not as it should be")
	}
	if !first {
		return nil
	}
	if err := node.Register(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(t.cfg.StateDir.Registered(), nil, 0o600); err != nil {
		return fmt.Errorf("note the registration: %w", err)
	}
	return nil
}

// newRecorder makes what events are told by, a reboot of the machine among them. stop is
// to be called at the end.
func (t *tenant) newRecorder(ctx context.Context, client kubernetes.Interface, node *nodestatus.Registrar) (recorder record.EventRecorder, stop func()) {
	events := record.NewBroadcaster(record.WithContext(ctx))
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder = events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: t.node})
	node.Rebooted = func() {
		recorder.Eventf(nodeRef(node.Node()), corev1.EventTypeWarning, "Rebooted", "Node %s has been rebooted, boot id: %s", t.node, t.machine.BootID)
	}
	return recorder, events.Shutdown
}

func (t *tenant) nodeFacts(ctx context.Context, target binding.Target) (nodestatus.Facts, error) {
	runtime, err := t.runtime.Version(ctx, "")
	if err != nil {
		return nodestatus.Facts{}, fmt.Errorf("ask the container runtime's version: %w", err)
	}
	size, cards := t.size.withRange(target.PodCIDR), t.tracker.Summary()
	return nodestatus.Facts{
		Name: t.node, Epoch: target.Epoch, Holder: t.holder, Machine: t.machine,
		Address: t.at(target.Address), Port: int32(t.cfg.Port),
		PodCIDR:  target.PodCIDR,
		Capacity: with(size.capacity, cards.Total), Allocatable: with(size.allocatable, cards.Usable),
		GPULabels: t.cards.NodeLabels(), Simulated: t.cards.Simulated() != "", BindLabels: target.Labels,
		KubeletVersion: KubeletVersion(), Runtime: runtime.RuntimeName + "://" + strings.TrimPrefix(runtime.RuntimeVersion, "v"),
	}, nil
}
