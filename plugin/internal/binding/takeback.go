package binding

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// disclaimed is how long a machine has to say that it has nothing of a binding that is
// taken back. One whose agent lives needs a moment.
const disclaimed = 5 * time.Second

// takeBack undoes a binding that the machine has got nothing of. An interruption
// undoes nothing: the same command goes on.
func (w *Walk) takeBack(ctx context.Context, p *Plan, epoch int64, because error) error {
	if ctx.Err() != nil || w.DryRun {
		return because
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	err := w.undo(ctx, p, epoch)
	if err != nil {
		return remedy.New("Take back the rest", "kubectl ainode unbind "+p.Node, "%w\n(and not all could be taken back: %w)", because, err)
	}
	return because
}

func (w *Walk) undo(ctx context.Context, p *Plan, epoch int64) error {
	if epoch == 0 {
		return w.delist(ctx, p)
	}
	mine := false
	if _, err := w.edit(ctx, p.Node, func(r *v1alpha1.AINode) (bool, error) {
		// Another bind of the same epoch may have got through meanwhile: a machine
		// that has its credential keeps it.
		mine = r.Spec.ClusterConfigName == p.Config && r.Spec.BindEpoch == epoch && !holds(r)
		if mine {
			release(&r.Spec)
		}
		return mine, nil
	}); err != nil || !mine {
		return err
	}
	if err := w.removeIdentities(ctx, p.Node, epoch); err != nil {
		return err
	}
	if err := w.waitDisclaimed(ctx, p, epoch); err != nil {
		return err
	}
	return w.delist(ctx, p)
}

// waitDisclaimed waits until the machine says that it has nothing of the epoch. It may have
// taken a credential over that it has not told of, and have made a Node with it.
func (w *Walk) waitDisclaimed(ctx context.Context, p *Plan, epoch int64) error {
	ctx, cancel := context.WithTimeout(ctx, disclaimed)
	defer cancel()
	_, err := kube.Until(ctx, w.Hub.WatchedAINode(p.Node), func(r *v1alpha1.AINode) (bool, error) {
		return r == nil || r.Spec.ClusterConfigName != "" || r.Spec.BindEpoch != epoch || r.Released(), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("its machine has not said within %s that it has nothing of it, and so it stays listed under %q", disclaimed, p.Config)
	}
	return err
}

// delist takes a node out of its config's list after a bind that came to nothing. The list
// is what remembers that something of a binding may be left: where the last one, whoever
// bound and whoever unbinds, is not wholly over, it stays, for unbind to go by.
func (w *Walk) delist(ctx context.Context, p *Plan) error {
	record, err := w.Hub.AINode(ctx, p.Node)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err == nil {
		// A machine that is bound to another cluster has let go of this one.
		elsewhere := record.Spec.ClusterConfigName != "" && record.Spec.ClusterConfigName != p.Config
		if !elsewhere && !record.Released() {
			return nil
		}
		if stands, err := w.stands(ctx, p.Node); err != nil || stands {
			return err
		}
	}
	return w.unlist(ctx, p.Config, p.Node)
}

// stands reports whether the target has a Node or an identity of any of a node's bindings.
func (w *Walk) stands(ctx context.Context, name string) (bool, error) {
	node, err := w.Target.Core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("read node %q of the target: %w", name, err)
	}
	if err == nil {
		if _, ours := identity.Epoch(node); ours {
			return true, nil
		}
	}
	roles, err := w.identities(ctx, name)
	if err != nil {
		return false, err
	}
	for i := range roles {
		if _, ours := identity.TargetEpoch(&roles[i], name); ours {
			return true, nil
		}
	}
	return false, nil
}
