package doctor

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
)

// What comes onto AI nodes, or speaks of what is there.
var landingChecks = []check{
	{"daemonsets", Target, standing | before, daemonSets},
	{"cni-taints", Target, before, cniTaints},
	{"pod-security", Target, standing | before, podSecurity},
	{"network-policies", Target, standing | before, networkPolicies},
}

// anAINode is what every AI node looks like to a scheduler. Of its hardware nothing
// is known here; amd64 is what DaemonSets ask for that ask at all.
func anAINode() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
		contract.NodeLabel: contract.NodeLabelValue, contract.TypeLabel: contract.TypeLabelValue,
		corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
	}}}
}

// comes reports whether pods of a DaemonSet would be made for AI nodes.
func comes(d *appsv1.DaemonSet) bool {
	pod := &corev1.Pod{Spec: d.Spec.Template.Spec}
	matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(anAINode())
	return err == nil && matches && slices.ContainsFunc(pod.Spec.Tolerations, contract.Tolerates)
}

// daemonSets finds those whose pods come onto AI nodes. The agent leaves them
// Pending; yet a pod that is on a node is one whose Secrets the node may read.
func daemonSets(_ context.Context, s *sight) (string, []flaw, error) {
	all, err := s.daemonSets()
	if err != nil {
		return "", nil, err
	}
	var names []string
	brings := brought{}
	var first *appsv1.DaemonSet
	for i := range all {
		d := &all[i]
		if !comes(d) {
			continue
		}
		if first == nil {
			first = d
		}
		names = append(names, d.Namespace+"/"+d.Name)
		brings.add(d.Namespace, &d.Spec.Template.Spec)
	}
	if len(names) == 0 {
		return fmt.Sprintf("none of %d comes onto AI nodes", len(all)), nil, nil
	}
	why := "they tolerate the taint; their pods there stay Pending, so that a rollout of them does not end"
	if len(brings) > 0 {
		why += "; and the machine may read what they mention: " + brings.String()
	}
	return one(Warning, fmt.Sprintf("%d of %s would have pods on AI nodes: %s", len(names), diagnosis.Count(len(all), "DaemonSet"), some(names)), why,
		fix(fmt.Sprintf("Keep each off by a required node affinity, %s DoesNotExist", contract.NodeLabel), "kubectl -n %s edit daemonset %s", first.Namespace, first.Name))
}

// enforceLabel is Pod Security's: the level that pods of a namespace are held to.
const enforceLabel = "pod-security.kubernetes.io/enforce"

// podSecurity tells of namespaces that give their GPU pods to AI nodes and hold pods
// to restricted: the pods of the vendor's page, which run as root, are refused there.
func podSecurity(_ context.Context, s *sight) (string, []flaw, error) {
	namespaces, err := s.namespaces()
	if err != nil {
		return "", nil, err
	}
	var opted, held []string
	for _, ns := range namespaces {
		if ns.Labels[contract.ScheduleLabel] != "true" {
			continue
		}
		opted = append(opted, ns.Name)
		if ns.Labels[enforceLabel] == "restricted" {
			held = append(held, ns.Name)
		}
	}
	if len(held) > 0 {
		return one(Warning, "Pod Security restricted holds in namespaces that opt in: "+some(held),
			"their pods keep their securityContext, and one that asks for root, as the vendor's example does, is refused",
			fix("Judge their pods as there", "kubectl ainode check -f FILE --namespace-opted-in --namespace-restricted"))
	}
	if len(opted) == 0 {
		return "no namespace opts in; pods do by themselves", nil, nil
	}
	return "no namespace that opts in enforces restricted: " + some(opted), nil, nil
}

// aiPods are the pods that the contract means: those on the nodes that are looked
// at, and those that wait for a node.
func (s *sight) aiPods(ctx context.Context) ([]corev1.Pod, error) {
	waiting, err := s.waiting()
	if err != nil {
		return nil, err
	}
	opted, err := s.optedIn()
	if err != nil {
		return nil, err
	}
	var mine []corev1.Pod
	for i := range waiting.pods {
		if pod := &waiting.pods[i]; pod.Spec.NodeName == "" && means(pod, opted) {
			mine = append(mine, *pod)
		}
	}
	for _, record := range s.nodes {
		if record.Spec.ClusterConfigName == "" {
			continue
		}
		on, err := podsOn(ctx, s.Target, record.Name)()
		if err != nil {
			return nil, err
		}
		mine = append(mine, slices.DeleteFunc(slices.Clone(on), func(p corev1.Pod) bool { return p.Spec.NodeName != record.Name })...)
	}
	return mine, nil
}

// networkPolicies finds those that select pods of AI nodes, where nothing enforces
// them (the row network-policy of the contract).
func networkPolicies(ctx context.Context, s *sight) (string, []flaw, error) {
	pods, err := s.aiPods(ctx)
	if err != nil {
		return "", nil, err
	}
	policies, err := s.Target.Core.NetworkingV1().NetworkPolicies(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", nil, err
	}
	var names []string
	selected := map[string]bool{}
	for _, p := range policies.Items {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			continue // an API server takes none that can't be read
		}
		for i := range pods {
			if pods[i].Namespace == p.Namespace && selector.Matches(labels.Set(pods[i].Labels)) {
				selected[pods[i].Namespace+"/"+pods[i].Name] = true
				if name := p.Namespace + "/" + p.Name; !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("none of %d selects a pod of AI nodes", len(policies.Items)), nil, nil
	}
	return one(Warning, fmt.Sprintf("%s of AI nodes selected by a NetworkPolicy: %s", diagnosis.Count(len(selected), "pod"), some(names)),
		"nothing enforces it there: whoever reaches the machine reaches the pod", fix("Guard them by the network that the AI nodes are in", "kubectl ainode explain network-policy"))
}
