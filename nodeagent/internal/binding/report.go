package binding

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/term"
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
	if err == nil && patch != nil {
		var answer *v1alpha1.AINode
		switch answer, err = b.patchStatus(ctx, record.ResourceVersion, patch); {
		case err == nil:
			b.wrote = now
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
		old := meta.FindStatusCondition(want.Conditions, v1alpha1.ConditionConflict)
		if old != nil && now.Sub(old.LastTransitionTime.Time) > conflictLife/2 {
			meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionConflict)
		}
		text := fmt.Sprintf("%s while %s holds it; it starts nothing", complaint(b.o.Holder), b.other)
		if b.owner != "" {
			text += fmt.Sprintf(" (if that one is gone for good: kubectl ainode unbind %s --force)", b.o.Joined.Node)
		}
		condition(&want.Conditions, now, v1alpha1.ConditionConflict, true, reasonConflict, text)
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
	switch {
	case s.outdated():
		condition(&want.Conditions, now, v1alpha1.ConditionReady, false, v1alpha1.ReasonRecordOutdated, fmt.Sprintf(
			"this machine serves epoch %d and keeps its pods; the record is of epoch %d, as of a hub that was restored from a backup "+
				"(have it learn what is served with: kubectl ainode bind %s --to CONFIG; or end that with: kubectl ainode unbind %s)",
			s.Credential, s.Record.Epoch, b.o.Joined.Node, b.o.Joined.Node))
	case b.kept.Restored != nil:
		condition(&want.Conditions, now, v1alpha1.ConditionReady, false, v1alpha1.ReasonRecordOutdated, fmt.Sprintf(
			"this machine's binding ends %s and not %s, as the record has it again: the hub was restored from a backup "+
				"(have it learn that, or the node is not given back by itself: kubectl ainode bind %s --to %s; or set an end with --until)",
			when(b.kept.End), when(*b.kept.Restored), b.o.Joined.Node, s.Record.ClusterConfigName))
	case b.problem != "" && step != Obtain || b.problem != "" && b.problem != errNotThere.Error():
		condition(&want.Conditions, now, v1alpha1.ConditionReady, false, reasonProblem, b.problem)
	case b.trouble != "":
		condition(&want.Conditions, now, v1alpha1.ConditionReady, false, reasonProblem, b.trouble)
	default:
		condition(&want.Conditions, now, v1alpha1.ConditionReady, true, reasonRunning, "")
	}
	switch answer := b.o.Tenant.PodsAnswered(); {
	case answer == nil || !s.Serving:
		meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionPodsAnswered)
	case answer.Trouble != "":
		condition(&want.Conditions, now, v1alpha1.ConditionPodsAnswered, false, reasonSilent, answer.Trouble)
	default:
		condition(&want.Conditions, now, v1alpha1.ConditionPodsAnswered, true, reasonAnswered, "")
	}
	hub, heard := b.hubClock.now()
	switch end, _ := b.end.Get(); {
	case end.IsZero():
		meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionClockAgrees)
	case heard && !term.Agree(now, hub):
		condition(&want.Conditions, now, v1alpha1.ConditionClockAgrees, false, reasonClockOff, term.Disagree(now, hub))
	case heard:
		condition(&want.Conditions, now, v1alpha1.ConditionClockAgrees, true, reasonClockRight, "")
	}
	switch certificate := b.o.Tenant.ServingCertificate(); {
	case s.Credential == 0:
		meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionServingCertificate)
	case certificate == SelfSigned:
		condition(&want.Conditions, now, v1alpha1.ConditionServingCertificate, false, reasonSelfSigned,
			"nobody signed one for this node: its API serves with one of its own (see: kubectl ainode doctor "+b.o.Joined.Node+")")
	case certificate == Signed:
		condition(&want.Conditions, now, v1alpha1.ConditionServingCertificate, true, reasonSigned, "")
	}
	switch {
	case s.Refused:
		condition(&want.Conditions, now, v1alpha1.ConditionCredentialValid, false, reasonRefused,
			"the target answers 401; pods are kept (have a new one made: kubectl ainode renew "+b.o.Joined.Node+")")
	case s.Serving && s.Credential != 0:
		condition(&want.Conditions, now, v1alpha1.ConditionCredentialValid, true, reasonAccepted, "")
	case s.Credential == 0:
		meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionCredentialValid)
	}
	return want
}
