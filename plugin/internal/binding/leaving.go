package binding

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// UnbindOptions are how a node is unbound.
type UnbindOptions struct {
	// MachineGone: nobody is there who would stop the pods.
	MachineGone bool
	// ClusterGone: the target is asked for nothing.
	ClusterGone bool
	// DisableEviction deletes pods rather than evicting them: disruption budgets are
	// not asked.
	DisableEviction bool
	// GracePeriodSeconds for each pod; negative leaves it to the pod.
	GracePeriodSeconds int
	// NoWait ends the walk when the machine has been told to let go; typed again, it
	// is gone on with. Of no matter where the machine or the cluster is gone.
	NoWait bool
}

// Leaving is a node on its way out of a binding.
type Leaving struct {
	Node string
	// Config is what it is, or was, bound to; empty if nothing lists it.
	Config string
	// Done is true if nothing is left to be done.
	Done bool

	options UnbindOptions
	record  *v1alpha1.AINode
	config  *v1alpha1.ClusterConfig
	epoch   int64
	// released: the machine has nothing of the binding any more.
	released bool
}

// command is what was typed to unbind this node, with o in place of what was given.
func (l *Leaving) command(o UnbindOptions) string {
	text := "kubectl ainode unbind " + l.Node
	for _, flag := range []struct {
		on   bool
		name string
	}{
		{o.MachineGone, "--force"}, {o.ClusterGone, "--cluster-gone"}, {o.DisableEviction, "--disable-eviction"},
		{o.GracePeriodSeconds >= 0, fmt.Sprintf("--grace-period=%d", o.GracePeriodSeconds)},
	} {
		if flag.on {
			text += " " + flag.name
		}
	}
	return text
}

// again is what was typed.
func (l *Leaving) again() string { return l.command(l.options) }

// CheckLeaving reads how far a node is out of its binding. It changes nothing and
// reads the hub only.
func (w *Walk) CheckLeaving(ctx context.Context, node string, o UnbindOptions) (*Leaving, error) {
	record, err := w.record(ctx, node)
	if err != nil {
		return nil, err
	}
	configs, err := w.Hub.ClusterConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list configs: %w", err)
	}
	l := &Leaving{
		Node: node, Config: record.Spec.ClusterConfigName,
		options: o, record: record, epoch: max(record.Spec.BindEpoch, record.Status.ObservedEpoch), released: record.Released(),
	}
	if listed := configsOf(configs.Items, node); l.Config == "" && len(listed) > 0 {
		l.Config = listed[0]
	}
	for i := range configs.Items {
		if configs.Items[i].Name == l.Config {
			l.config = &configs.Items[i]
		}
	}
	l.Done = l.Config == "" && l.released
	if l.Config != "" && l.config == nil && !o.ClusterGone {
		o.ClusterGone = true
		return nil, &remedy.Error{
			Err: remedy.New("Import the cluster again under that name", "kubectl ainode import "+l.Config,
				"AI node %q is bound to %q, a config that is not there any more", node, l.Config),
			Say: "Only if that cluster is gone for good", Command: l.command(o),
		}
	}
	return l, nil
}

// CheckReach fails unless the cluster that answers is the one that the node is to
// be taken out of. A missing right to see that is told with all the others.
func (w *Walk) CheckReach(ctx context.Context, l *Leaving) error {
	if l.config == nil {
		return nil
	}
	if l.options.ClusterGone {
		return w.checkGone(ctx, l)
	}
	err := w.sameCluster(ctx, l.config)
	if err == nil || apierrors.IsForbidden(err) {
		return nil
	}
	if apierrors.IsUnauthorized(err) || ctx.Err() != nil {
		return err
	}
	gone := l.options
	gone.ClusterGone, gone.DisableEviction, gone.GracePeriodSeconds = true, false, -1
	return &remedy.Error{Err: err, Say: "Only if that cluster is gone for good", Command: l.command(gone)}
}

// CheckMachine fails if nobody is there who would stop the pods; or, where the
// machine is said to be gone, if it is not.
func (w *Walk) CheckMachine(ctx context.Context, l *Leaving) error {
	if l.released {
		return nil
	}
	sign, err := w.sign(ctx, l.Node)
	if err != nil {
		return err
	}
	now := w.Clock.Now()
	if l.options.MachineGone {
		return w.checkSilence(ctx, l, sign)
	}
	if sign.Alive(now) {
		return nil
	}
	gone := l.options
	gone.MachineGone, gone.DisableEviction, gone.GracePeriodSeconds = true, false, -1
	return &remedy.Error{
		Err: remedy.New("Start it there", "systemctl start ainode-agent",
			"AI node %q is lost: its agent, which has to stop the pods, was seen last %s ago", l.Node, nodes.Age(sign.Seen, now)),
		Say: "Only if the machine is gone for good", Command: l.command(gone),
	}
}

// Leave walks a node out of its binding, the way that its options say.
func (w *Walk) Leave(ctx context.Context, l *Leaving) error {
	way := w.unbind
	switch {
	case l.options.ClusterGone:
		way = w.abandon
	case l.options.MachineGone:
		way = w.force
	}
	at := "nothing was changed"
	err := way(ctx, l, func(reached string) { at = reached })
	if err == nil || ctx.Err() == nil {
		return err
	}
	return w.interrupted(l, at)
}

// interrupted says where a walk stood when it was called off, and what goes on.
func (w *Walk) interrupted(l *Leaving, at string) error {
	err := remedy.New("Go on", l.again(), "unbinding AI node %q was interrupted: %s", l.Node, at)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	record, readErr := w.Hub.AINode(ctx, l.Node)
	if readErr != nil || record.Spec.ClusterConfigName == "" || !record.Spec.Draining {
		return err
	}
	return &remedy.Error{Err: err, Say: "Or call it off", Command: "kubectl ainode bind " + l.Node + " --to " + l.Config}
}
