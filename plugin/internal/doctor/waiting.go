package doctor

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/component-helpers/resource"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
)

// mostWaiting is how many pods that wait for a node are read: in a cluster where more
// wait, the first of them tell enough, and the API server is not made to send them all.
const mostWaiting = 500

// waitingPods are those that no node was found for yet; more says that there are others.
type waitingPods struct {
	pods []corev1.Pod
	more bool
}

// readWaiting reads them in one request.
func readWaiting(ctx context.Context, target *kube.Cluster) (waitingPods, error) {
	list, err := target.Core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		Limit: mostWaiting,
		FieldSelector: fields.AndSelectors(fields.OneTermEqualSelector("spec.nodeName", ""),
			fields.OneTermEqualSelector("status.phase", string(corev1.PodPending))).String(),
	})
	if err != nil {
		return waitingPods{}, err
	}
	return waitingPods{list.Items, list.Continue != ""}, nil
}

// pendingPods tells which pods would be on the node as soon as it is bound, sent there by
// the scheduler or since they name it, and what they bring. Those that mean AI nodes are what a binding is for: they
// are told, and speak against nothing.
func pendingPods(_ context.Context, s *sight) (string, []flaw, error) {
	if !s.joined() || s.blind() {
		return "", nil, nil
	}
	waiting, err := s.waiting()
	if err != nil {
		return "", nil, err
	}
	opted, err := s.optedIn()
	if err != nil {
		return "", nil, err
	}
	node := nodeToBe(s.node)
	meant, strays := landing{brings: brought{}}, landing{brings: brought{}}
	for i := range waiting.pods {
		pod := &waiting.pods[i]
		if !lands(pod, node) {
			continue
		}
		if means(pod, opted) {
			meant.add(pod)
		} else {
			strays.add(pod)
		}
	}
	named, err := s.pods()
	if err != nil {
		return "", nil, err
	}
	for i := range named {
		if pod := &named[i]; names(pod, node.Name) {
			meant.add(pod)
		}
	}
	of := ""
	if waiting.more {
		of = fmt.Sprintf(" (of the first %d)", mostWaiting)
	}
	var flaws []flaw
	if n := len(meant.names); n > 0 {
		flaws = append(flaws, flaw{OK, fmt.Sprintf("%s%s may come at once: %s", diagnosis.Count(n, "waiting pod"), of, meant), "", nil})
	}
	if n := len(strays.names); n > 0 {
		namespace, name, _ := strings.Cut(strays.names[0], "/")
		flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s%s may come at once without having asked for an AI node: %s", diagnosis.Count(n, "waiting pod"), of, strays),
			"who tolerates the taint may be sent there, takes the place of pods that need the cards, and lets the machine read what it brings", []string{
				fix(fmt.Sprintf("See whose it is, and keep it off by a required node affinity, %s DoesNotExist", contract.NodeLabel), "kubectl -n %s describe pod %s", namespace, name),
			}})
	}
	return "no waiting pod" + of + " would come at once", flaws, nil
}

// landing are pods that would come, and what they bring.
type landing struct {
	names  []string
	brings brought
}

func (l *landing) add(pod *corev1.Pod) {
	l.names = append(l.names, pod.Namespace+"/"+pod.Name)
	l.brings.add(pod.Namespace, &pod.Spec)
}

func (l landing) String() string {
	text := some(l.names)
	if what := l.brings.String(); what != "" {
		text += ", with " + what
	}
	return text
}

// names reports whether a pod that has not been started names the node. The API server
// takes away one whose node is not there, but not at once. A DaemonSet's pods are another
// check's matter.
func names(pod *corev1.Pod, node string) bool {
	controller := metav1.GetControllerOf(pod)
	return pod.Spec.NodeName == node && pod.Status.Phase == corev1.PodPending && pod.DeletionTimestamp == nil &&
		(controller == nil || controller.Kind != "DaemonSet")
}

// optedIn are the namespaces that give their pods with GPUs to AI nodes.
func (s *sight) optedIn() (map[string]bool, error) {
	namespaces, err := s.namespaces()
	if err != nil {
		return nil, err
	}
	opted := map[string]bool{}
	for _, ns := range namespaces {
		opted[ns.Name] = ns.Labels[contract.ScheduleLabel] == "true"
	}
	return opted, nil
}

// means reports whether a pod is one of AI nodes, as the contract has it.
func means(pod *corev1.Pod, opted map[string]bool) bool {
	seen, err := contract.FromPod(pod)
	return err == nil && contract.Targets(seen, contract.Namespace{OptedIn: opted[pod.Namespace]})
}

// nodeToBe is the Node that an agent registers for a record (nodeagent/internal/nodestatus),
// as far as the hub knows the machine. What only the machine knows is not on it: its
// architecture, and the labels that tell of its driver.
func nodeToBe(r *v1alpha1.AINode) *corev1.Node {
	node := anAINode()
	node.Name = r.Name
	maps.Copy(node.Labels, r.Spec.NodeLabels)
	maps.Copy(node.Labels, map[string]string{corev1.LabelHostname: r.Name, contract.NodeNameLabel: r.Name})
	if gpus := r.Status.GPUs; len(gpus) > 0 {
		maps.Copy(node.Labels, map[string]string{
			"nvidia.com/gpu.count":   strconv.Itoa(len(gpus)),
			"nvidia.com/gpu.product": strings.Join(strings.Fields(gpus[0].Product), "-"),
			"nvidia.com/gpu.memory":  strconv.FormatInt(gpus[0].Memory.Value()>>20, 10),
		})
	}
	if r.Status.SimulatedGPUs != "" {
		node.Labels[contract.SimulatedLabel] = "true"
	}
	node.Spec.Taints = []corev1.Taint{contract.Taint()}
	node.Status.Capacity = corev1.ResourceList{}
	for name, q := range r.Status.Capacity {
		node.Status.Capacity[corev1.ResourceName(name)] = q
	}
	return node
}

// lands reports whether a scheduler would send a waiting pod to an empty node: by its
// taints, by what the pod asks of a node, and by what the node has in all. Which of many
// pods come first is not asked.
func lands(pod *corev1.Pod, node *corev1.Node) bool {
	if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 || pod.Status.Phase != corev1.PodPending {
		return false
	}
	if _, untolerated := schedulingcorev1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, nil, false); untolerated {
		return false
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !matches {
		return false
	}
	if len(node.Status.Capacity) == 0 {
		return true // the agent has not told yet what it has
	}
	for name, wanted := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		if has := node.Status.Capacity[name]; wanted.Cmp(has) > 0 {
			return false
		}
	}
	return true
}
