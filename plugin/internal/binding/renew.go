package binding

import (
	"context"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// RenewRights are what renewing the credential of node needs, which is bound to config.
// Where the config is not known, for want of a right to read it, it is empty.
func RenewRights(node, config string) (hub, target []preflight.Right) {
	hub, target = BindRights(node, config, false)
	kept := hub[:0]
	for _, r := range hub {
		if r.Resource != "clusterconfigs" || r.Verb == "get" { // it is listed there already
			kept = append(kept, r)
		}
	}
	return kept, target
}

// BoundTo is the config that a node is bound to; an error says what else it is.
func (w *Walk) BoundTo(ctx context.Context, node string) (config string, err error) {
	record, err := w.record(ctx, node)
	if err != nil {
		return "", err
	}
	return record.Spec.ClusterConfigName, renewable(record)
}

// renewable fails unless the node is bound, and is to stay so.
func renewable(r *v1alpha1.AINode) error {
	switch config := r.Spec.ClusterConfigName; {
	case config == "" && !r.Released():
		return remedy.New("Finish it", "kubectl ainode unbind "+r.Name, "AI node %q is being unbound: it has no use for a new credential", r.Name)
	case config == "":
		return remedy.New("Bind it", "kubectl ainode bind "+r.Name+" --to CONFIG", "AI node %q is not bound: it has no credential", r.Name)
	case r.Spec.Draining:
		return &remedy.Error{
			Err: remedy.New("Finish it", "kubectl ainode unbind "+r.Name, "AI node %q is being unbound from %q", r.Name, config),
			Say: "Or call it off", Command: "kubectl ainode bind " + r.Name + " --to " + config,
		}
	case !holds(r):
		return remedy.New("Finish that", "kubectl ainode bind "+r.Name+" --to "+config,
			"AI node %q is still being bound to %q: its agent has no credential of this binding yet", r.Name, config)
	}
	return nil
}

// CheckRenewal reads everything that speaks against a renewal, and changes nothing. The
// rights have been asked for before.
func (w *Walk) CheckRenewal(ctx context.Context, r Request) (*Plan, error) {
	record, err := w.record(ctx, r.Node)
	if err != nil {
		return nil, err
	}
	if err := renewable(record); err != nil {
		return nil, err
	}
	p := &Plan{Request: r, renewal: true, since: record.Spec.FirstEpoch(), epoch: record.Spec.BindEpoch}
	if p.config, err = w.Hub.ClusterConfig(ctx, r.Config); err != nil {
		return nil, fmt.Errorf("read config %q, which AI node %q is bound to: %w", r.Config, r.Node, err)
	}
	if err := p.checkKey(record); err != nil {
		return nil, err
	}
	if err := p.chooseAddress(record); err != nil {
		return nil, err
	}
	if err := p.keepRange(record); err != nil {
		return nil, err
	}
	if err := w.checkAlive(ctx, r.Node, ". Nobody would take a new credential over; its pods run on if the machine does, and its account stays as it is"); err != nil {
		return nil, &remedy.Error{Err: err, Say: "Only if the machine is gone or stolen", Command: "kubectl ainode unbind " + r.Node + " --force"}
	}
	if err := w.sameCluster(ctx, p.config); err != nil {
		return nil, err
	}
	if err := w.checkNode(ctx, p, record); err != nil {
		return nil, err
	}
	if err := w.checkRenews(ctx, record); err != nil {
		return nil, err
	}
	if p.clientCA, err = w.clientCA(ctx); err != nil {
		return nil, err
	}
	p.goesOn, err = w.halfRenewed(ctx, record)
	return p, err
}

// checkRenews fails unless agent and hub tell a renewal from another binding. One that does
// not ends every pod at a new epoch.
func (w *Walk) checkRenews(ctx context.Context, record *v1alpha1.AINode) error {
	sign, err := w.sign(ctx, record.Name)
	if err != nil {
		return err
	}
	if !sign.Renews {
		return &remedy.Error{
			Err: remedy.New("Install a newer one there (its pods run on)", "systemctl restart ainode-agent",
				"the agent of AI node %q (version %q) does not say that it knows renewals, and one that knows none would end every pod",
				record.Name, record.Status.AgentVersion),
			Say: "If a newer one has just been started, type it again in a moment", Command: "kubectl ainode renew " + record.Name,
		}
	}
	// An API server drops what its CRD does not know, without a word: whether it keeps the
	// epoch that the binding began in is tried before any is written.
	trial := *w
	trial.DryRun = true
	kept, err := trial.edit(ctx, record.Name, func(r *v1alpha1.AINode) (bool, error) {
		change := r.Spec.SinceEpoch == 0
		r.Spec.SinceEpoch = r.Spec.FirstEpoch()
		return change, nil
	})
	if err != nil {
		return err
	}
	if kept.Spec.SinceEpoch == 0 {
		return outdatedChart("the hub's records are of an older version, in which a renewal of AI node %q looks like another binding: its agent would end every pod", record.Name)
	}
	return nil
}

// halfRenewed reports whether a renewal has begun and did not end: its credential has
// not been taken over, or the accounts before it are still there. A credential that is
// dead already ends it too.
func (w *Walk) halfRenewed(ctx context.Context, r *v1alpha1.AINode) (bool, error) {
	if !taken(r) || refused(r) {
		return !taken(r), nil
	}
	roles, err := w.Target.Core.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeNameLabel + "=" + r.Name})
	if err != nil {
		return false, fmt.Errorf("list the identities of %q on the target: %w", r.Name, err)
	}
	for _, role := range roles.Items {
		epoch, err := strconv.ParseInt(role.Annotations[contract.BindEpochAnnotation], 10, 64)
		if err == nil && epoch < r.Spec.BindEpoch && role.Name == identity.Target(r.Name, epoch) {
			return true, nil
		}
	}
	return false, nil
}

// Renew does what CheckRenewal planned, up to the handing over of the new credential.
// Whatever ends it early, the agent acts with the credential that it has. It returns
// the epoch.
func (w *Walk) Renew(ctx context.Context, p *Plan) (int64, error) {
	record, err := w.raise(ctx, p)
	if err != nil {
		return 0, err
	}
	if err := w.give(ctx, p, record); err != nil {
		return 0, remedy.New("Its pods run on, with the credential it had; go on with", p.command(), "renew the credential of AI node %q: %w", p.Node, err)
	}
	return record.Spec.BindEpoch, nil
}

// raise writes the wish for a new credential into the record: a new epoch of the same
// binding, or the one of a walk that broke off.
func (w *Walk) raise(ctx context.Context, p *Plan) (*v1alpha1.AINode, error) {
	record, err := w.edit(ctx, p.Node, func(r *v1alpha1.AINode) (bool, error) {
		switch {
		case r.Spec.ClusterConfigName != p.Config || r.Spec.FirstEpoch() != p.since:
			return false, fmt.Errorf("AI node %q was unbound meanwhile", p.Node)
		case r.Spec.Draining:
			return false, remedy.New("Finish it", "kubectl ainode unbind "+p.Node, "AI node %q is being unbound meanwhile", p.Node)
		case p.goesOn || r.Spec.BindEpoch != p.epoch: // somebody else has begun: theirs is as new
			return false, nil
		}
		r.Spec.SinceEpoch = p.since
		r.Spec.BindEpoch++
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if record.Spec.BindEpoch == p.epoch {
		w.Progress.Line(p.Node, "a renewal that did not end is gone on with: epoch %d", p.epoch)
	} else {
		w.Progress.Line(p.Node, "a new account, epoch %d after %d; its pods run on", record.Spec.BindEpoch, p.epoch)
	}
	return record, nil
}
