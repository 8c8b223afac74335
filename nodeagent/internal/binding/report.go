package binding

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/v1alpha1"
)

// report writes the status if it is due, and returns after how long the next write
// may be.
func (b *Binder) report(ctx context.Context, step Step, s Situation) time.Duration {
	b.mu.Lock()
	record := b.record
	b.mu.Unlock()
	if record == nil || step == Wait {
		return time.Second
	}
	now := b.o.Clock.Now()
	want := b.wanted(step, s, record.Status, now)
	if since := now.Sub(b.wrote); since < statusPeriod && !urgent(record.Status, want) {
		return statusPeriod - since
	}
	patch, err := statusPatch(record.Status, want)
	if patch != nil && string(patch) == b.said && record.ResourceVersion == b.saidTo && now.Sub(b.wrote) < dropped {
		return statusPeriod
	}
	if err == nil && patch != nil {
		var answer *v1alpha1.AINode
		switch answer, err = b.patchStatus(ctx, record.ResourceVersion, patch); {
		case err == nil:
			b.wrote, b.said, b.saidTo = now, string(patch), answer.ResourceVersion
			// The watch will say the same later; until then this is what stands there.
			b.replace(record, answer)
		case apierrors.IsConflict(err):
			// Somebody was faster. What is to be said now is seen by what they wrote.
			if answer, err = b.readRecord(ctx); err == nil {
				b.replace(record, answer)
				b.poke()
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Status not reported")
		return 2 * time.Second
	}
	return statusPeriod
}

// replace takes now for the record, unless the watch has brought another than old meanwhile.
func (b *Binder) replace(old, now *v1alpha1.AINode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.record == old {
		b.record = now
	}
}

// wanted is the status this machine wants to stand on the hub. One whose name is another
// machine's complains and changes nothing else.
func (b *Binder) wanted(step Step, s Situation, have v1alpha1.AINodeStatus, now time.Time) v1alpha1.AINodeStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	want := *have.DeepCopy()
	if step == Yield || s.Claim == Elsewhere {
		b.complain(&want.Conditions, now)
		return want
	}
	f := b.o.Facts()
	want.Address, want.GPUs, want.SimulatedGPUs, want.Capacity = f.Address, slices.Clone(f.GPUs), f.Simulated, f.Capacity
	if want.Addresses = slices.Clone(f.Addresses); b.credential != nil && b.credential.Address != "" {
		want.Address = b.credential.Address
	}
	want.Machine, want.AgentVersion = f.Machine, f.AgentVersion
	want.PublicKey = b.o.Key.Public.String()
	want.GPUsInUse = int32(min(b.o.Tenant.GPUsInUse(), 1<<20))
	want.BindStatus, want.ObservedEpoch = bindStatus(step, s, b.registered, have.BindStatus, have.ObservedEpoch)
	want.Binding = served(b.credential, b.kept.End)
	want.Conditions = settled(want.Conditions, now, b.o.Holder)
	forced(&want.Conditions, now, step, s, have)
	b.tellReady(&want.Conditions, now, step, s, f)
	b.tellPodsAnswered(&want.Conditions, now, s)
	b.tellClockAgrees(&want.Conditions, now)
	b.tellServingCertificate(&want.Conditions, now, s)
	b.tellCredentialValid(&want.Conditions, now, s)
	return want
}
