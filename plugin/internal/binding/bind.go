package binding

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Bind does what Check planned, up to the handing over of the credential. An error
// before that takes back what was written, an interruption leaves it to be gone on
// with. It returns the epoch.
func (w *Walk) Bind(ctx context.Context, p *Plan) (int64, error) {
	epoch, err := w.bind(ctx, p)
	if err == nil && p.first != nil && !w.DryRun {
		return epoch, w.Retime(ctx, p)
	}
	if err == nil || ctx.Err() == nil {
		return epoch, err
	}
	return epoch, &remedy.Error{
		Err: remedy.New("Go on", "kubectl ainode bind "+p.Node+" --to "+p.Config,
			"binding AI node %q to %q was interrupted before its machine was handed a credential", p.Node, p.Config),
		Say: "Or take it back", Command: "kubectl ainode unbind " + p.Node,
	}
}

func (w *Walk) bind(ctx context.Context, p *Plan) (int64, error) {
	if _, err := w.list(ctx, p.Config, p.Node, true); err != nil {
		return 0, err
	}
	record, claimed, err := w.want(ctx, p)
	if err != nil {
		epoch := int64(0)
		if claimed && record != nil {
			epoch = record.Spec.BindEpoch // written, and then found wanting
		}
		return 0, w.takeBack(ctx, p, epoch, err)
	}
	epoch := record.Spec.BindEpoch
	if claimed {
		if err := w.checkFirst(ctx, p, record.ResourceVersion); err != nil {
			return epoch, w.takeBack(ctx, p, epoch, err)
		}
	}
	// Whoever cleared up after the last binding may have found it released until now,
	// and taken it out of the list.
	if _, err := w.list(ctx, p.Config, p.Node, true); err != nil {
		return epoch, err
	}
	if !w.DryRun {
		// An unbinding that could not reach this cluster may have left some, which nobody
		// acts with: while there are, no certificate is approved.
		err = w.removeIdentities(ctx, p.Node, record.Spec.FirstEpoch()-1)
	}
	if err == nil {
		err = w.give(ctx, p, record)
	}
	if err != nil && !holds(record) {
		err = w.takeBack(ctx, p, epoch, err)
	}
	return epoch, err
}

// give makes the identity that the record asks for and hands its credential over.
func (w *Walk) give(ctx context.Context, p *Plan, record *v1alpha1.AINode) error {
	epoch := record.Spec.BindEpoch
	if taken(record) && !refused(record) {
		return nil // the agent has its credential: only the waiting is left
	}
	token, err := w.admit(ctx, p, epoch)
	if err != nil || w.DryRun {
		return err
	}
	if err := w.stillWanted(ctx, p, epoch); err != nil {
		return err
	}
	if err := w.handOver(ctx, p, epoch, token); err != nil {
		return err
	}
	return w.stillWanted(ctx, p, epoch)
}

// stillWanted takes the identity of an epoch back that was released while it was made:
// who unbound has looked for it too early. One of the two sees what the other did.
func (w *Walk) stillWanted(ctx context.Context, p *Plan, epoch int64) error {
	record, err := w.Hub.AINode(ctx, p.Node)
	if err != nil {
		return fmt.Errorf("read AI node %q once more: %w", p.Node, err)
	}
	if record.Spec.ClusterConfigName == p.Config && record.Spec.BindEpoch >= epoch {
		return nil
	}
	because := fmt.Errorf("AI node %q was unbound meanwhile", p.Node)
	return errors.Join(because, w.removeIdentities(ctx, p.Node, epoch))
}

// want writes the wish into the record: a new epoch, or the one of a walk that
// broke off. An unbinding that has not let go yet is called off. claimed reports
// whether the epoch is new.
func (w *Walk) want(ctx context.Context, p *Plan) (record *v1alpha1.AINode, claimed bool, err error) {
	calledOff, end := false, p.Term
	if p.first != nil && !w.DryRun {
		end = p.first // the other one once the machine has seen this: Retime
	}
	record, err = w.edit(ctx, p.Node, func(r *v1alpha1.AINode) (bool, error) {
		claimed = r.Spec.ClusterConfigName == ""
		if nodes.Outdated(r) && (claimed || r.Spec.ClusterConfigName == p.Config) {
			// What the machine serves stands on this target: the hub learns it again.
			w.Progress.Line(p.Node, "the record is brought from epoch %d to %d, which the machine serves", r.Spec.BindEpoch, r.Status.ObservedEpoch)
			if r.Spec.SinceEpoch = r.Spec.FirstEpoch(); claimed {
				r.Spec.SinceEpoch = r.Status.ObservedEpoch
			}
			r.Spec.PodCIDR, r.Spec.Address = rangeOf(r), addressOf(r)
			r.Spec.ClusterConfigName, r.Spec.BindEpoch, r.Spec.Draining = p.Config, r.Status.ObservedEpoch, false
			end.put(&r.Spec)
			return true, nil
		}
		switch r.Spec.ClusterConfigName {
		case p.Config:
			calledOff = r.Spec.Draining
			change := calledOff || !end.stands(r.Spec)
			r.Spec.Draining = false
			end.put(&r.Spec)
			return change, nil
		case "":
			if r.Status.PublicKey != p.Key.String() {
				return false, remedy.New("Look at it, and bind it then", "kubectl ainode describe "+p.Node,
					"another machine has joined as AI node %q meanwhile: its key is not %s any more", p.Node, p.Key.Fingerprint())
			}
			r.Spec.ClusterConfigName, r.Spec.Draining = p.Config, false
			r.Spec.BindEpoch++
			r.Spec.SinceEpoch = r.Spec.BindEpoch
			r.Spec.NodeLabels, r.Spec.PodCIDR = maps.Clone(p.Labels), p.Pods.String()
			r.Spec.Address, r.Spec.Until, r.Spec.DrainGrace = p.Address, nil, nil
			end.put(&r.Spec)
			return true, nil
		default:
			return false, remedy.New("Unbind it first", "kubectl ainode unbind "+p.Node,
				"AI node %q was bound to %q meanwhile", p.Node, r.Spec.ClusterConfigName)
		}
	})
	if err == nil && !w.DryRun {
		err = errors.Join(end.kept(record), p.keptAddress(record, claimed))
	}
	if err != nil || !calledOff {
		return record, claimed, err
	}
	w.calledOff(p)
	return record, false, w.cordon(ctx, p.Node, false)
}

func (w *Walk) calledOff(p *Plan) { w.Progress.Line(p.Node, "its unbinding is called off") }

// ForeseeBind says what Bind would call off, and asks nobody.
func (w *Walk) ForeseeBind(p *Plan) {
	if p.callsOff {
		w.calledOff(p)
	}
}

// admit makes the identity of the epoch on the target, proves what it may and may
// not do, and returns a token of it that is good for ten minutes.
func (w *Walk) admit(ctx context.Context, p *Plan, epoch int64) (string, error) {
	if err := w.makeIdentity(ctx, newTargetIdentity(p.Node, epoch, p.address)); err != nil || w.DryRun {
		return "", err
	}
	token, err := w.requestToken(ctx, identity.Target(p.Node, epoch))
	if err != nil {
		return "", err
	}
	as, err := w.Target.As(token, identity.NodeUser(p.Node), identity.NodesGroup)
	if err != nil {
		return "", err
	}
	return token, prove(ctx, as, p.Node)
}

// makeIdentity creates what is not there yet; the ClusterRole first, since it owns
// the rest.
func (w *Walk) makeIdentity(ctx context.Context, t targetIdentity) error {
	core, rbac := w.Target.Core.CoreV1(), w.Target.Core.RbacV1()
	ns, options := contract.SystemNamespace, metav1.CreateOptions{DryRun: w.dryRun()}
	name := t.clusterRole.Name

	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, options)
	absent := err == nil
	if err != nil && !apierrors.IsAlreadyExists(err) {
		// Without the right to create it, one that is there is good enough.
		if _, getErr := core.Namespaces().Get(ctx, ns, metav1.GetOptions{}); getErr != nil {
			return fmt.Errorf("create namespace %q on the target: %w", ns, err)
		}
	}
	role, err := rbac.ClusterRoles().Create(ctx, t.clusterRole, options)
	if apierrors.IsAlreadyExists(err) {
		role, err = rbac.ClusterRoles().Get(ctx, name, metav1.GetOptions{})
		if err == nil && role.Annotations[contract.BindEpochAnnotation] != t.clusterRole.Annotations[contract.BindEpochAnnotation] {
			err = errors.New("there is another one of that name, which is not ours")
		}
		if address := t.clusterRole.Annotations[contract.AddressAnnotation]; err == nil && role.Annotations[contract.AddressAnnotation] != address {
			role.Annotations[contract.AddressAnnotation] = address // it has moved since it was bound
			role, err = rbac.ClusterRoles().Update(ctx, role, metav1.UpdateOptions{DryRun: w.dryRun()})
		}
	}
	if err != nil {
		return fmt.Errorf("create ClusterRole %q on the target: %w", name, err)
	}
	t.own(role)
	for _, make := range []struct {
		kind string
		do   func() error
	}{
		{"ServiceAccount", func() error { _, err := core.ServiceAccounts(ns).Create(ctx, t.serviceAccount, options); return err }},
		{"Role", func() error { _, err := rbac.Roles(ns).Create(ctx, t.role, options); return err }},
		{"RoleBinding", func() error { _, err := rbac.RoleBindings(ns).Create(ctx, t.roleBinding, options); return err }},
		{"ClusterRoleBinding", func() error { _, err := rbac.ClusterRoleBindings().Create(ctx, t.clusterBinding, options); return err }},
	} {
		if absent && w.DryRun && make.kind != "ClusterRoleBinding" {
			continue // in a namespace that was made for show nothing can be tried
		}
		if err := make.do(); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %q on the target: %w", make.kind, name, err)
		}
	}
	return nil
}
