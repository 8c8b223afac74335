package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

var targetChecks = []check{
	{"target", Target, standing | before, targetAnswers},
	{"target-version", Target, standing | before, func(_ context.Context, s *sight) (string, []flaw, error) { return version(s.Target) }},
	{"clock", Target, standing | before, func(ctx context.Context, s *sight) (string, []flaw, error) { return clockOf(ctx, s, s.Target) }},
	{"rights", Target, before, mayBind},
	{"node-names", Target, standing | before, nodeNames},
	{"leftovers", Target, standing | before, leftovers},
	{"load-balancers", Target, before, balancersBefore},
}

// targetAnswers is the gate: is there a cluster, and which one.
func targetAnswers(_ context.Context, s *sight) (string, []flaw, error) {
	uid, err := s.uid()
	if err != nil {
		return one(Error, err.Error(), "the rest of the target was not looked at, nor what your AI nodes are there",
			fix("See which cluster your kubeconfig names", "kubectl config view --minify"))
	}
	configs, err := s.configs()
	if err != nil {
		return s.Target.Config.Host, nil, nil // the hub's gate says so
	}
	var names []string
	for _, c := range configs {
		if c.Spec.ClusterUID == uid {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return one(Warning, "no config is of the cluster that your kubeconfig names, "+s.Target.Config.Host, "no AI node can be bound to it, and of others nothing is seen here",
			fix("Import it", "kubectl ainode import NAME"), fix("Or name the cluster", "kubectl ainode doctor --context CONTEXT --hub-context CONTEXT"))
	}
	return fmt.Sprintf("%s, imported as %s", s.Target.Config.Host, strings.Join(names, ", ")), nil, nil
}

func mayBind(ctx context.Context, s *sight) (string, []flaw, error) {
	if s.Rights == nil {
		return "", nil, nil
	}
	err := s.Rights(ctx)
	if err != nil && len(remedy.Lines(err)) == 0 {
		return "", nil, err
	}
	if err != nil {
		return "", []flaw{flawOf(Error, err, "")}, nil
	}
	return "you may do all that bind does", nil, nil
}

// nodeNames finds ordinary nodes that are called as AI nodes are: a pod that names
// one is taken for an AI node's.
func nodeNames(_ context.Context, s *sight) (string, []flaw, error) {
	members, err := s.members()
	if err != nil {
		return "", nil, err
	}
	var strange []string
	for i := range members {
		if _, ours := identity.Epoch(&members[i]); contract.IsNodeName(members[i].Name) && !ours {
			strange = append(strange, members[i].Name)
		}
	}
	if len(strange) > 0 {
		count := "one node is"
		if len(strange) > 1 {
			count = fmt.Sprintf("%d nodes are", len(strange))
		}
		return one(Warning, fmt.Sprintf("%s no AI node and called so: %s", count, some(strange)),
			fmt.Sprintf("names that begin with %s are AI nodes': a pod that names such a node by nodeName is changed or refused", contract.NodeNamePrefix),
			fix("Let it join under another name", "kubectl describe node %s", strange[0]))
	}
	return fmt.Sprintf("no ordinary node is called %s…", contract.NodeNamePrefix), nil, nil
}

// leftovers finds what bindings have left behind on the target: an unbinding whose
// plugin died before it was through.
func leftovers(ctx context.Context, s *sight) (string, []flaw, error) {
	records, err := s.records()
	if err != nil {
		return "", nil, err
	}
	roles, err := s.Target.Core.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeNameLabel})
	if err != nil {
		return "", nil, err
	}
	members, err := s.members()
	if err != nil {
		return "", nil, err
	}
	var flaws []flaw
	told := map[string]bool{}
	judge := func(kind, name, node string, epoch int64) {
		at := slices.IndexFunc(records, func(r v1alpha1.AINode) bool { return r.Name == node })
		switch {
		case at < 0 && told[node]:
		case at < 0:
			told[node] = true
			flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s %s is of AI node %q, which has no record on this hub", kind, name, node),
				"it is another hub's, or was left behind", []string{fix("Only if no other hub has it", "kubectl delete %s %s", kind, name)}})
		case records[at].Spec.ClusterConfigName != "" && wanted(&records[at], kind, epoch):
		case records[at].Spec.ClusterConfigName != "" && epoch >= records[at].Spec.FirstEpoch() && epoch < records[at].Spec.BindEpoch:
			flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s %s is of epoch %d of %s, whose credential was renewed: it is epoch %d now", kind, name, epoch, node, records[at].Spec.BindEpoch),
				"the account before the renewal lives on; the renewal did not end", []string{fix("Finish it", "kubectl ainode renew %s", node)}})
		case records[at].Spec.ClusterConfigName != "":
			flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s %s is of epoch %d of %s, which is bound in epoch %d", kind, name, epoch, node, records[at].Spec.BindEpoch),
				"an account of an ended binding lives on", []string{fix("Remove it, all of that epoch goes with it", "kubectl delete %s %s", kind, name)}})
		case !told[node]:
			told[node] = true
			flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s %s is left of a binding of %s, which is unbound", kind, name, node),
				"its unbinding did not end yet; " + clearsUp, []string{fix("Finish it", "kubectl ainode unbind %s", node)}})
		}
	}
	for i := range members {
		if epoch, ours := identity.Epoch(&members[i]); ours {
			judge("node", members[i].Name, members[i].Name, epoch)
		}
	}
	for i := range roles.Items {
		role := &roles.Items[i]
		if epoch, ours := identity.Epoch(role); ours {
			judge("clusterrole", role.Name, role.Labels[contract.NodeNameLabel], epoch)
		}
	}
	return "nothing is left of ended bindings", flaws, nil
}

// wanted reports whether an object of epoch is one that the record's binding needs: those
// of the newest epoch, and while its credential is being renewed what it still acts with.
// A Node is dated anew when its agent next registers it.
func wanted(r *v1alpha1.AINode, kind string, epoch int64) bool {
	if epoch == r.Spec.BindEpoch {
		return true
	}
	return epoch >= r.Spec.FirstEpoch() && epoch < r.Spec.BindEpoch && (kind == "node" || nodes.Renewing(r))
}

// balancersBefore tells who may send an AI node traffic that nobody there forwards:
// it has no kube-proxy, and node ports lead nowhere.
func balancersBefore(_ context.Context, s *sight) (string, []flaw, error) {
	if s.Excluded {
		return "they are told to keep off (--lb-mode exclude)", nil, nil
	}
	choking, err := s.choking()
	if err != nil || len(choking) == 0 {
		return "none that would send traffic to node ports of AI nodes", nil, err
	}
	return one(Warning, fmt.Sprintf("the controller of %s of type LoadBalancer may take an AI node for a backend: %s", diagnosis.Count(len(choking), "Service"), some(choking)),
		"AI nodes forward no node ports; what is sent there is lost", fix("Have it keep off", "kubectl ainode bind NODE --to CONFIG --lb-mode exclude"))
}

// choking are the Services whose load balancer sends to the node ports of any node.
// Alibaba Cloud's controller, whose provider ids have no scheme, keeps off nodes
// that are called virtual kubelets; a policy Local asks for a pod on the node.
func (s *sight) choking() ([]string, error) {
	members, err := s.members()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(members, func(n corev1.Node) bool { return strings.Contains(n.Spec.ProviderID, "://") }) {
		return nil, nil // no controller of a cloud that takes any node
	}
	services, err := s.services()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, svc := range services {
		if svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal &&
			svc.Spec.LoadBalancerClass == nil {
			names = append(names, svc.Namespace+"/"+svc.Name)
		}
	}
	return names, nil
}
