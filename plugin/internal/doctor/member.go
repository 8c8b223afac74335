package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

// What a bound node is on the target.
var memberChecks = []check{
	{"node", Node, standing, nodeThere},
	{"node-conditions", Node, standing, nodeConditions},
	{"node-taints", Node, standing, nodeTaints},
	{"node-balancers", Node, standing, balancers},
	{"serving", Node, standing, serving},
	{"pods", Node, standing, stuckPods},
}

// elsewhere reports whether a config is of another cluster than the target.
func (s *sight) elsewhere(config string) bool {
	configs, err := s.configs()
	if err != nil {
		return false
	}
	uid, err := s.uid()
	if err != nil {
		return false
	}
	for _, c := range configs {
		if c.Name == config {
			return c.Spec.ClusterUID != uid
		}
	}
	return false
}

// blind reports whether the node's part on the target can't be seen: the target is
// out of reach, or not the cluster that the node is bound to.
func (s *sight) blind() bool { return s.away || s.elsewhere(s.node.Spec.ClusterConfigName) }

// member is the node's Node; nil where there is none, or none to be seen.
func (s *sight) member() (*corev1.Node, error) {
	if s.node.Spec.ClusterConfigName == "" || s.blind() {
		return nil, nil // nothing to look at is an answer
	}
	members, err := s.members()
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].Name == s.node.Name {
			return &members[i], nil
		}
	}
	return nil, nil // as above; the check "node" says so
}

func nodeThere(_ context.Context, s *sight) (string, []flaw, error) {
	spec, name := s.node.Spec, s.node.Name
	if spec.ClusterConfigName == "" || s.away {
		return "", nil, nil // the target's gate says why
	}
	if s.elsewhere(spec.ClusterConfigName) {
		return one(Warning, fmt.Sprintf("it is bound to %q, another cluster than the one that your kubeconfig names", spec.ClusterConfigName), "its node there was not looked at",
			fix("Name that cluster's context, and the hub's", "kubectl ainode doctor %s --context CONTEXT --hub-context CONTEXT", name))
	}
	again := fix("Have it registered again", "kubectl ainode bind %s --to %s", name, spec.ClusterConfigName)
	node, err := s.member()
	if err != nil {
		return "", nil, err
	}
	if node == nil {
		return one(Error, "the target has no node of this name", "no pod comes to it", again)
	}
	var flaws []flaw
	if epoch, ours := identity.Epoch(node); !ours || epoch < spec.FirstEpoch() || epoch > spec.BindEpoch {
		flaws = append(flaws, flaw{Error, fmt.Sprintf("the node there is not of this binding (epoch %d)", spec.BindEpoch), "another one has the name, or an old one was left", []string{again}})
	}
	if node.Labels[contract.NodeLabel] != contract.NodeLabelValue || !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { taint := contract.Taint(); return t.MatchTaint(&taint) }) {
		flaws = append(flaws, flaw{Error, "its label or taint was taken away", "ordinary pods come to it, or AI nodes' pods don't", []string{again}})
	}
	if node.Spec.Unschedulable && !spec.Draining {
		flaws = append(flaws, flaw{Warning, "it is cordoned", "no new pod is sent to it", []string{fix("Let them come", "kubectl uncordon %s", name)}})
	}
	return fmt.Sprintf("there, kubelet version %s", node.Status.NodeInfo.KubeletVersion), flaws, nil
}

// nodeConditions tells what a scheduler goes by.
func nodeConditions(_ context.Context, s *sight) (string, []flaw, error) {
	node, err := s.member()
	if err != nil || node == nil {
		return "", nil, err
	}
	var flaws []flaw
	for _, c := range node.Status.Conditions {
		good, why := corev1.ConditionFalse, "pods are kept off it, and some may be evicted"
		severity := Warning
		switch c.Type {
		case corev1.NodeReady:
			good, why, severity = corev1.ConditionTrue, "no new pod is sent to it, and after five minutes those that don't tolerate it are evicted", Error
		case contract.GPUsUsableCondition:
			good, why = corev1.ConditionTrue, "cards that can't be used are given to no pod"
		}
		if c.Status != good {
			flaws = append(flaws, flaw{severity, fmt.Sprintf("%s=%s since %s ago: %s", c.Type, c.Status, nodes.Age(c.LastTransitionTime.Time, s.Clock.Now()), strings.Trim(c.Reason+": "+c.Message, ": ")),
				why, []string{fix("See all of it", "kubectl describe node %s", node.Name)}})
		}
	}
	return "Ready", flaws, nil
}

// known are the taints that are told elsewhere, or meant.
func known(t corev1.Taint) bool {
	ours := contract.Taint()
	return t.MatchTaint(&ours) || strings.HasPrefix(t.Key, "node.kubernetes.io/") || t.Effect == corev1.TaintEffectPreferNoSchedule
}

// nodeTaints finds others' taints: a network plugin that waits for its own agent on
// each node taints those where none comes (node.cilium.io/agent-not-ready), for ever
// on an AI node.
func nodeTaints(_ context.Context, s *sight) (string, []flaw, error) {
	node, err := s.member()
	if err != nil || node == nil {
		return "", nil, err
	}
	var flaws []flaw
	for _, t := range node.Spec.Taints {
		if !known(t) {
			flaws = append(flaws, flaw{Warning, fmt.Sprintf("it has a taint that is not ours: %s", t.ToString()),
				"pods that don't tolerate it stay Pending; a network plugin's is never taken away here, as AI nodes run none of its pods",
				[]string{fix("Take it away, and tell who sets it to leave AI nodes alone", "kubectl taint node %s %s:%s-", node.Name, t.Key, t.Effect)}})
		}
	}
	return "none but ours", flaws, nil
}

func balancers(_ context.Context, s *sight) (string, []flaw, error) {
	node, err := s.member()
	if err != nil || node == nil {
		return "", nil, err
	}
	if _, excluded := node.Labels[corev1.LabelNodeExcludeBalancers]; excluded {
		return "load balancers keep off", nil, nil
	}
	choking, err := s.choking()
	if err != nil || len(choking) == 0 {
		return "no load balancer sends to its node ports", nil, err
	}
	return one(Warning, fmt.Sprintf("the controller of %s of type LoadBalancer may take it for a backend: %s", diagnosis.Count(len(choking), "Service"), some(choking)),
		"AI nodes forward no node ports; what is sent there is lost", fix("Have it keep off", "kubectl label node %s %s=true", node.Name, corev1.LabelNodeExcludeBalancers))
}

// serving asks the node through the API server, as kubectl logs and exec do; where
// that fails its certificate requests mostly say why.
func serving(ctx context.Context, s *sight) (string, []flaw, error) {
	node, err := s.member()
	if err != nil || node == nil {
		return "", nil, err
	}
	asked, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	healthz := s.Target.Healthz(asked, node.Name)
	if healthz == nil {
		return answersWith(s)
	}
	if nodes.AddressMissing(s.node) {
		return "", nil, nil // the check "address" says why
	}
	why := "logs, exec, cp and port-forward do not work there"
	requests, err := s.Target.Core.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		return one(Error, fmt.Sprintf("it does not answer the API server on port 10250: %v", healthz), why, fix("See its certificate requests", "kubectl get csr"))
	}
	state, name := newest(requests.Items, identity.NodeUser(node.Name))
	if apierrors.IsForbidden(healthz) && state == "approved" {
		return "its certificate is approved; whether it answers is told to who may get nodes/proxy", nil, nil
	}
	switch state {
	case "pending":
		return one(Error, "its serving certificate is not approved: "+name, why+"; nobody approves it, or the address is not the one that it was bound with",
			fix("See the webhook's log", "kubectl -n %s logs deployment/%s", contract.SystemNamespace, deployment), fix("Or approve it yourself", "kubectl certificate approve %s", name))
	case "denied", "failed":
		return one(Error, fmt.Sprintf("its serving certificate was %s: %s", state, name), why, fix("See the reason", "kubectl describe csr %s", name))
	}
	if text := cmp.Or(s.node.Spec.Address, s.node.Status.Address); text != "" && kube.Unreached(healthz) {
		neighbours, _ := s.neighbours() // without them it is not said
		why += "; is " + text + nodes.FarOff(text, neighbours) + " routed to the machine?"
	}
	return one(Error, fmt.Sprintf("it does not answer the API server on port 10250: %v", healthz), why+"; does a firewall lie between?",
		fix("On the machine", "ainode-agent doctor"))
}

// answersWith judges the certificate of a node whose API answers.
func answersWith(s *sight) (string, []flaw, error) {
	if _, own := condition(s.node, v1alpha1.ConditionServingCertificate, metav1.ConditionFalse); own {
		return one(Warning, "logs and exec answer, with a self-signed certificate: nobody signed one for it",
			"this cluster's API server checks no node's certificate, so whoever sits between the two can read along and answer in its place",
			fix("See its requests; those of the right address are approved by the webhook", "kubectl get csr"),
			fix("Its log", "kubectl -n %s logs deployment/%s", contract.SystemNamespace, deployment))
	}
	return "logs and exec answer through the API server", nil, nil
}

// newest is the state of the newest request of a user for a serving certificate.
func newest(requests []certificatesv1.CertificateSigningRequest, user string) (state, name string) {
	var at time.Time
	for _, r := range requests {
		if r.Spec.Username != user || r.Spec.SignerName != certificatesv1.KubeletServingSignerName || r.CreationTimestamp.Time.Before(at) {
			continue
		}
		at, name, state = r.CreationTimestamp.Time, r.Name, "pending"
		for _, c := range r.Status.Conditions {
			state = strings.ToLower(string(c.Type))
		}
	}
	return state, name
}

// overdue is how long a pod may outstay its grace before it counts as stuck.
const overdue = time.Minute

func stuckPods(_ context.Context, s *sight) (string, []flaw, error) {
	node, err := s.member()
	if err != nil || node == nil {
		return "", nil, err
	}
	pods, err := s.pods()
	if err != nil {
		return "", nil, err
	}
	var stuck []string
	count := 0
	for _, p := range pods {
		if p.Spec.NodeName != node.Name {
			continue
		}
		count++
		if p.DeletionTimestamp != nil && s.Clock.Now().Sub(p.DeletionTimestamp.Time) > overdue {
			stuck = append(stuck, p.Namespace+"/"+p.Name)
		}
	}
	if len(stuck) > 0 {
		namespace, name, _ := strings.Cut(stuck[0], "/")
		return one(Warning, diagnosis.Count(len(stuck), "pod")+" should have ended by now: "+some(stuck), "their cards are not free, and unbind waits for them; a finalizer or a process that can't be killed holds them",
			fix("See what holds it", "kubectl -n %s describe pod %s", namespace, name))
	}
	return diagnosis.Count(count, "pod"), nil, nil
}
