package binding

import (
	"context"
	"time"

	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// checkGone fails if the cluster that is said to be gone is the one that answers.
func (w *Walk) checkGone(ctx context.Context, l *Leaving) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	uid, err := w.Target.UID(ctx)
	if err != nil || uid != l.config.Spec.ClusterUID {
		return nil // it can't be proved that a cluster is gone; that is what the flag says
	}
	there := l.options
	there.ClusterGone, there.MachineGone = false, false // a machine that is gone too is told then
	return remedy.New("Unbind it in order", l.command(there),
		"the cluster of config %q answers at %s: --cluster-gone is for clusters that are gone", l.Config, w.Target.Config.Host)
}

// abandon ends a binding on the hub alone, for a target that is gone for good. The
// machine needs none of it: it obeys its record.
func (w *Walk) abandon(ctx context.Context, l *Leaving, reached func(string)) error {
	identity := identity.Target(l.Node, l.epoch)
	w.Progress.Warn(l.Node, "its cluster is asked for nothing and nothing is removed there. If it is not gone but only out of reach, it keeps the node, "+
		"takes its pods for running or unknown, starts none in their place, and keeps an account that may act as the node. Remove them there:  "+
		"kubectl delete clusterrole %s; kubectl delete node %s", identity, l.Node)
	waiting, cancel := w.patience(ctx)
	defer cancel()
	if err := w.letGo(ctx, l, false); err != nil {
		return err
	}
	reached("the hub has released it; its machine stops everything by itself")
	w.Progress.Line(l.Node, "[1/3] released on the hub")
	switch {
	case l.released:
	case l.options.MachineGone:
		if err := w.reportReleased(ctx, l); err != nil {
			return err
		}
	default:
		if err := w.waitReleased(waiting, l); err != nil {
			return err
		}
	}
	reached("its machine has let go; it is still listed under its config")
	w.Progress.Line(l.Node, "[2/3] machine released")
	if l.config != nil {
		if err := w.unlist(ctx, l.Config, l.Node); err != nil {
			return err
		}
	}
	w.Progress.Line(l.Node, "[3/3] taken from the list of %q", l.Config)
	return nil
}
