package binding

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// checkSilence fails unless the machine gives no sign of life. This computer's clock
// may be wrong, so that a Lease counts as stale only after it has stood still
// before our eyes.
func (w *Walk) checkSilence(ctx context.Context, l *Leaving, sign nodes.Sign) error {
	there := l.options
	there.MachineGone = false
	alive := remedy.New("Unbind it without force", l.command(there),
		"the agent of AI node %q is alive: --force is for machines that are gone", l.Node)
	if sign.Alive(w.Clock.Now()) {
		return alive
	}
	before, err := w.renewal(ctx, l.Node)
	if err != nil || before.IsZero() {
		return err
	}
	w.Progress.Line(l.Node, "watching %s for a sign of life", sign.Life/2)
	timer := w.Clock.NewTimer(sign.Life / 2)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
	}
	after, err := w.renewal(ctx, l.Node)
	if err != nil {
		return err
	}
	if !after.Equal(before) {
		return alive
	}
	return nil
}

func (w *Walk) renewal(ctx context.Context, node string) (time.Time, error) {
	lease, err := w.Hub.Core.CoordinationV1().Leases(contract.SystemNamespace).Get(ctx, identity.HubLease(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = &coordinationv1.Lease{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the lease of AI node %q's agent: %w", node, err)
	}
	return ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time, nil
}

// force ends the binding of a machine that is gone. Should it come back, it finds
// the record without a cluster, stops everything and wipes its credential.
func (w *Walk) force(ctx context.Context, l *Leaving, reached func(string)) error {
	w.Progress.Warn(l.Node, "forced: if the machine is not gone but only cut off, its pods run on until it reads the hub again, "+
		"while others are started in their place: make sure that it is off, above all for StatefulSets and shared storage")
	// The record first: it is what the machine obeys, should it be there after all.
	if err := w.letGo(ctx, l, false); err != nil {
		return err
	}
	reached("the hub has released it; what stands for it on the target is not all removed")
	w.Progress.Line(l.Node, "[1/3] released on the hub")
	if l.config != nil {
		left, err := w.remains(ctx, l.Node, l.epoch)
		if err != nil {
			return err
		}
		if err := w.remove(ctx, left.Identities); err != nil {
			return err
		}
		if len(left.Node) > 0 {
			if err := w.outOfService(ctx, l.Node); err != nil {
				return err
			}
		}
		if err := w.remove(ctx, left.Pods); err != nil {
			return err
		}
	}
	w.Progress.Line(l.Node, "[2/3] credential dead, pods removed")
	if !l.released {
		if err := w.reportReleased(ctx, l); err != nil {
			return err
		}
	}
	if err := w.cleanUp(ctx, l); err != nil {
		return err
	}
	w.Progress.Line(l.Node, "[3/3] node and identity removed from %q", l.Config)
	return nil
}

// reportReleased says in the agent's place what it can't say any more.
func (w *Walk) reportReleased(ctx context.Context, l *Leaving) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		record, err := w.Hub.AINode(ctx, l.Node)
		if err != nil || record.Released() {
			return err
		}
		if err := l.same(record); err != nil {
			return err
		}
		record.Status.BindStatus, record.Status.ObservedEpoch = v1alpha1.Unbound, l.epoch
		record.Status.GPUsInUse = 0
		meta.SetStatusCondition(&record.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionForced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnboundByForce,
			LastTransitionTime: metav1.NewTime(w.Clock.Now()).Rfc3339Copy(),
			Message:            fmt.Sprintf("its binding of epoch %d was ended by force while its machine was silent; if that comes back, it stops every pod that it still runs", l.epoch),
		})
		return w.Hub.Records.Status().Update(ctx, record)
	})
	if err != nil {
		return fmt.Errorf("write the status of AI node %q: %w", l.Node, err)
	}
	return nil
}
