package binding

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// What the conditions of a record say. Callers hold mu.

// complain says that the name is another machine's, and says it again before it is taken
// for settled.
func (b *Binder) complain(conditions *[]metav1.Condition, now time.Time) {
	old := meta.FindStatusCondition(*conditions, v1alpha1.ConditionConflict)
	if old != nil && now.Sub(old.LastTransitionTime.Time) > v1alpha1.ConflictLife/2 {
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionConflict)
	}
	text := fmt.Sprintf("%s while %s holds it; it starts nothing", complaint(b.o.Holder), cmp.Or(b.owner, b.other))
	if b.owner != "" {
		text += fmt.Sprintf(" (if that one is gone for good: kubectl ainode unbind %s --force; else unbind it, and stop its agent)", b.o.Joined.Node)
	}
	condition(conditions, now, v1alpha1.ConditionConflict, true, reasonConflict, text)
}

func (b *Binder) tellReady(conditions *[]metav1.Condition, now time.Time, step Step, s Situation, f Facts) {
	switch missing := b.missing(f); {
	case s.outdated():
		condition(conditions, now, v1alpha1.ConditionReady, false, v1alpha1.ReasonRecordOutdated, fmt.Sprintf(
			"this machine serves epoch %d and keeps its pods; the record is of epoch %d, as of a hub that was restored from a backup "+
				"(have it learn what is served with: kubectl ainode bind %s --to CONFIG; or end that with: kubectl ainode unbind %s)",
			s.Credential, s.Record.Epoch, b.o.Joined.Node, b.o.Joined.Node))
	case b.kept.Restored != nil:
		condition(conditions, now, v1alpha1.ConditionReady, false, v1alpha1.ReasonRecordOutdated, fmt.Sprintf(
			"this machine's binding ends %s and not %s, as the record has it again: the hub was restored from a backup "+
				"(have it learn that, or the node is not given back by itself: kubectl ainode bind %s --to %s; or set an end with --until)",
			when(b.kept.End), when(*b.kept.Restored), b.o.Joined.Node, s.Record.ClusterConfigName))
	case b.problem != "" && step != Obtain || b.problem != "" && b.problem != errNotThere.Error():
		condition(conditions, now, v1alpha1.ConditionReady, false, reasonProblem, b.problem)
	case b.trouble != "":
		condition(conditions, now, v1alpha1.ConditionReady, false, reasonProblem, b.trouble)
	case missing != "":
		condition(conditions, now, v1alpha1.ConditionReady, false, v1alpha1.ReasonAddressMissing, missing)
	default:
		condition(conditions, now, v1alpha1.ConditionReady, true, reasonRunning, "")
	}
}

// missing says that the machine lacks the address that the binding is served at: its pods
// run, and nobody reaches them or their logs. Empty if it has it.
func (b *Binder) missing(f Facts) string {
	switch {
	case b.credential == nil || f.Lacks == nil:
	case b.credential.Address != "" && f.Lacks(b.credential.Address):
		return fmt.Sprintf("address %s, chosen at bind, is no longer this machine's: give it back to the machine, or unbind: kubectl ainode unbind %s",
			b.credential.Address, b.o.Joined.Node)
	case b.credential.Address == "" && f.Lacks(f.Address):
		return fmt.Sprintf("address %s, which the agent began with, is not this machine's: give it back to the machine, "+
			"or restart the agent (--node-ip, if that is set, is to be one that the machine has)", f.Address)
	}
	return ""
}

func (b *Binder) tellPodsAnswered(conditions *[]metav1.Condition, now time.Time, s Situation) {
	switch answer := b.o.Tenant.PodsAnswered(); {
	case answer == nil || !s.Serving:
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionPodsAnswered)
	case answer.Trouble != "":
		condition(conditions, now, v1alpha1.ConditionPodsAnswered, false, reasonSilent, answer.Trouble)
	default:
		condition(conditions, now, v1alpha1.ConditionPodsAnswered, true, reasonAnswered, "")
	}
}

func (b *Binder) tellClockAgrees(conditions *[]metav1.Condition, now time.Time) {
	hub, heard := b.hubClock.now()
	switch end, _ := b.end.Get(); {
	case end.IsZero():
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionClockAgrees)
	case heard && !term.Agree(now, hub):
		condition(conditions, now, v1alpha1.ConditionClockAgrees, false, reasonClockOff, term.Disagree(now, hub))
	case heard:
		condition(conditions, now, v1alpha1.ConditionClockAgrees, true, reasonClockRight, "")
	}
}

func (b *Binder) tellServingCertificate(conditions *[]metav1.Condition, now time.Time, s Situation) {
	switch certificate := b.o.Tenant.ServingCertificate(); {
	case s.Credential == 0:
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionServingCertificate)
	case certificate == SelfSigned:
		condition(conditions, now, v1alpha1.ConditionServingCertificate, false, reasonSelfSigned,
			"nobody signed one for this node: its API serves with one of its own (see: kubectl ainode doctor "+b.o.Joined.Node+")")
	case certificate == Signed:
		condition(conditions, now, v1alpha1.ConditionServingCertificate, true, reasonSigned, "")
	}
}

func (b *Binder) tellCredentialValid(conditions *[]metav1.Condition, now time.Time, s Situation) {
	switch {
	case s.Refused:
		condition(conditions, now, v1alpha1.ConditionCredentialValid, false, reasonRefused,
			"the target answers 401; pods are kept (have a new one made: kubectl ainode renew "+b.o.Joined.Node+")")
	case s.Serving && s.Credential != 0:
		condition(conditions, now, v1alpha1.ConditionCredentialValid, true, reasonAccepted, "")
	case s.Credential == 0:
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionCredentialValid)
	}
}
