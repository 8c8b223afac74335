package binding

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/configs"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// clientCAConfigMap of kube-system holds the CA of the API server's clients. A node
// may not read it, so that bind hands it over.
const clientCAConfigMap = "extension-apiserver-authentication"

// Request is one binding as it was asked for.
type Request struct {
	Node, Config string
	// Labels are for the Node, besides the contract's.
	Labels map[string]string
	// Pods is the range of the pods' addresses; none has them share the machine's.
	Pods podrange.Range
	// Address is the machine's address that the target reaches it by; empty is the one that
	// its agent chooses.
	Address string
	// Term is when the binding ends; nil leaves that as it is, or without an end.
	Term *Term
	// KeepGrace leaves a node that has an end its drain grace: Term's is for the others.
	KeepGrace bool
	// Fingerprint pins the machine's key; empty takes the one that joined.
	Fingerprint string
}

// Plan is a request that may be done.
type Plan struct {
	Request
	// Done is true if there is nothing to do, but for the end, if Retimed.
	Done bool
	// Retimed is true of a bound node that is to have another end.
	Retimed bool
	// Had is the end that the node's binding has so far; nil for none.
	Had *Term
	// Key is the machine's key, which the credential is sealed to.
	Key handover.PublicKey

	// first is an end that the record is given before Term, where the hub was restored and
	// the machine goes by another than its record has.
	first    *Term
	config   *v1alpha1.ClusterConfig
	clientCA []byte
	// address is the machine's: the one chosen, or as its agent says.
	address string
	// callsOff is true of a node that is being unbound.
	callsOff bool
	// renewal is true where a binding that stands gets a new credential.
	renewal bool
	// since and epoch are the record's when a renewal was planned; goesOn is true for one
	// that has begun and did not end.
	since, epoch int64
	goesOn       bool
}

// command is what is typed to begin with the plan, and to go on with it.
func (p *Plan) command() string {
	if p.renewal {
		return "kubectl ainode renew " + p.Node
	}
	return "kubectl ainode bind " + p.Node + " --to " + p.Config
}

// Check reads everything that speaks against a binding, and changes nothing. The
// rights have been asked for before.
func (w *Walk) Check(ctx context.Context, r Request) (*Plan, error) {
	record, err := w.Hub.AINode(ctx, r.Node)
	if apierrors.IsNotFound(err) {
		return nil, &remedy.Error{Err: nodes.Unknown(ctx, w.Hub, r.Node), Say: "Or add it", Command: "kubectl ainode add " + r.Node}
	}
	if err != nil {
		return nil, fmt.Errorf("read AI node %q: %w", r.Node, err)
	}
	config, err := w.Hub.ClusterConfig(ctx, r.Config)
	if apierrors.IsNotFound(err) {
		return nil, &remedy.Error{Err: configs.Unknown(ctx, w.Hub, r.Config), Say: "Or import the cluster", Command: "kubectl ainode import " + r.Config}
	}
	if err != nil {
		return nil, fmt.Errorf("read config %q: %w", r.Config, err)
	}
	p := &Plan{Request: r, config: config}
	p.begin(record)
	if err := w.checkRecord(ctx, p, record); err != nil {
		return nil, err
	}
	if err := w.sameCluster(ctx, config); err != nil {
		return nil, err
	}
	if err := w.checkNode(ctx, p, record); err != nil || p.Done {
		return p, err
	}
	if err := w.checkRange(ctx, p); err != nil {
		return nil, err
	}
	p.clientCA, err = w.clientCA(ctx)
	return p, err
}

// clientCA reads the CA that clients of the node's API are checked with.
func (w *Walk) clientCA(ctx context.Context) ([]byte, error) {
	authentication, err := w.Target.Core.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, clientCAConfigMap, metav1.GetOptions{})
	if err == nil && authentication.Data["client-ca-file"] == "" {
		err = errors.New("it has no client-ca-file: the API server checks no client certificates")
	}
	if err != nil {
		return nil, fmt.Errorf("read the CA of the target's clients in ConfigMap %s/%s, without which logs and exec can't be served: %w",
			metav1.NamespaceSystem, clientCAConfigMap, err)
	}
	return []byte(authentication.Data["client-ca-file"]), nil
}

// checkRecord judges what the hub says of the node.
func (w *Walk) checkRecord(ctx context.Context, p *Plan, record *v1alpha1.AINode) error {
	node := p.Node
	switch {
	case record.Spec.ClusterConfigName != "" && record.Spec.ClusterConfigName != p.Config:
		return remedy.New("Unbind it first", "kubectl ainode unbind "+node,
			"AI node %q is bound to %q", node, record.Spec.ClusterConfigName)
	case record.Status.PublicKey == "":
		return remedy.New("Print the command to run there", "kubectl ainode add "+node,
			"no machine has joined as AI node %q yet", node)
	case record.Spec.ClusterConfigName == "" && !record.Released() && !nodes.Outdated(record):
		return remedy.New("Finish it", "kubectl ainode unbind "+node,
			"AI node %q is still being unbound: its agent reports %s of epoch %d, not yet Unbound of epoch %d",
			node, record.Status.BindStatus, record.Status.ObservedEpoch, record.Spec.BindEpoch)
	}
	if err := p.checkKey(record); err != nil {
		return err
	}
	if err := p.chooseAddress(record); err != nil {
		return err
	}
	all, err := w.Hub.ClusterConfigs(ctx)
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, other := range configsOf(all.Items, node) {
		if other != p.Config {
			return remedy.New("Finish it", "kubectl ainode unbind "+node, "AI node %q is still listed as bound to %q: its unbinding did not end", node, other)
		}
	}
	if err := w.checkAlive(ctx, node, ""); err != nil {
		if record.Spec.ClusterConfigName != "" && meta.IsStatusConditionTrue(record.Status.Conditions, v1alpha1.ConditionConflict) {
			return &remedy.Error{Err: err, Say: "Another machine has joined under its name. If the lost one is gone for good", Command: "kubectl ainode unbind " + node + " --force"}
		}
		return err
	}
	if known := lost(record); p.Term == nil {
		p.Term = known
	} else if known != nil && !known.equal(p.Term) {
		if p.first = p.Term.beside(w.Clock.Now()); p.first.stands(record.Spec) {
			p.first = p.first.beside(w.Clock.Now()) // the machine has not taken that one either
		}
	}
	p.Retimed = record.Spec.ClusterConfigName == p.Config && (p.first != nil || !p.Term.stands(record.Spec))
	if record.Spec.ClusterConfigName == p.Config || nodes.Outdated(record) {
		if err := p.keepRange(record); err != nil {
			return err
		}
	}
	if record.Spec.ClusterConfigName == p.Config && len(p.Labels) > 0 && !maps.Equal(record.Spec.NodeLabels, p.Labels) {
		w.Progress.Warn(node, "it keeps the labels it was bound with; unbind it to change them")
	}
	return nil
}

// checkKey takes over the machine's key, which must be the one that was asked for.
func (p *Plan) checkKey(record *v1alpha1.AINode) (err error) {
	if p.Key, err = handover.ParsePublicKey(record.Status.PublicKey); err != nil {
		return fmt.Errorf("the record of AI node %q has a damaged key: %w", p.Node, err)
	}
	if p.Fingerprint != "" && p.Fingerprint != p.Key.Fingerprint() {
		return remedy.New("Compare with what the machine says", "ainode-agent join prints its key's fingerprint",
			"the machine that joined as AI node %q has key %s, not %s: it may be another machine than you think", p.Node, p.Key.Fingerprint(), p.Fingerprint)
	}
	return nil
}

// checkAlive fails unless the agent is; so says what that means for what was asked.
func (w *Walk) checkAlive(ctx context.Context, node, so string) error {
	sign, err := w.sign(ctx, node)
	if err != nil {
		return err
	}
	if now := w.Clock.Now(); !sign.Alive(now) {
		return remedy.New("Look at it there", "systemctl status ainode-agent",
			"AI node %q is lost: its agent was seen last %s ago%s", node, nodes.Age(sign.Seen, now), so)
	}
	return nil
}

// checkNode judges what the target says of the node.
func (w *Walk) checkNode(ctx context.Context, p *Plan, record *v1alpha1.AINode) error {
	node, err := w.Target.Core.CoreV1().Nodes().Get(ctx, p.Node, metav1.GetOptions{})
	there := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read node %q of the target: %w", p.Node, err)
	}
	if nodes.Outdated(record) {
		return w.checkServed(p, record, node, there)
	}
	if !there {
		return nil
	}
	epoch, ours := identity.Epoch(node)
	switch {
	case !ours || epoch > record.Spec.BindEpoch:
		return remedy.New("See what it is", "kubectl describe node "+p.Node,
			"cluster %q has a node %q already that is not this AI node: names that begin with %s are theirs", p.Config, p.Node, contract.NodeNamePrefix)
	case record.Spec.ClusterConfigName == "" && record.Released() && !slices.Contains(p.config.Status.BoundNodes, p.Node):
		// Unbind goes by the list, and finds nothing to do.
		return remedy.New("Remove it", "kubectl delete node "+p.Node,
			"cluster %q still has the node %q of an earlier binding (epoch %d), which is over and which nothing lists any more", p.Config, p.Node, epoch)
	case record.Spec.ClusterConfigName == "" || epoch < record.Spec.FirstEpoch():
		return remedy.New("Take it away", "kubectl ainode unbind "+p.Node,
			"cluster %q still has the node %q of an earlier binding (epoch %d)", p.Config, p.Node, epoch)
	}
	s := record.Status
	// One whose end draws near still serves. To move that, nothing more is asked: pods are
	// being sent away meanwhile.
	serves := s.BindStatus == v1alpha1.Bound || s.BindStatus == v1alpha1.Draining && p.Retimed
	p.Done = serves && s.ObservedEpoch == record.Spec.BindEpoch && !record.Spec.Draining &&
		taken(record) && !refused(record) && slices.Contains(p.config.Status.BoundNodes, p.Node) && ready(node) &&
		w.Target.Healthz(ctx, p.Node) == nil
	return nil
}

// checkServed refuses to have the hub learn again what its record has lost, unless the
// target's node is of that very binding.
func (w *Walk) checkServed(p *Plan, record *v1alpha1.AINode, node *corev1.Node, there bool) error {
	served := record.Status.ObservedEpoch
	if epoch, our := identity.Epoch(node); there && our && epoch == served {
		return nil
	}
	return remedy.New("If it is bound to no other cluster, end what it serves", "kubectl ainode unbind "+p.Node,
		"the machine of AI node %q serves a binding (epoch %d) that is not in its record (epoch %d), as after a hub was restored, and cluster %q has no node of it",
		p.Node, served, record.Spec.BindEpoch, p.Config)
}

// ready reports whether a Node is Ready.
func ready(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
