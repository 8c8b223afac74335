// Package admission judges whether a pod may run on the node: by what there is room for,
// and by what of the machine no pod gets. It is pure.
package admission

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// Reasons of a refusal besides OutOf…, as the kubelet and the scheduler name them.
const (
	reasonNodeAffinity    = "NodeAffinity"
	reasonNodePorts       = "NodePorts"
	reasonTaintToleration = "TaintToleration"
	reasonPodOS           = "PodOSNotSupported"
	reasonSysctl          = "SysctlForbidden"
	// NotSupported is ours: the pod asks for something of the machine that
	// no pod on an AI node gets.
	NotSupported = "NotSupported"
)

// Admit judges a pod that the node sees for the first time, in the kubelet's
// order: what cannot be helped first, then room. others are the pods that are
// admitted and whose processes may still live; shared says that they share the node's
// address, of which ports are reserved. It returns nil if the pod may run.
func Admit(pod *corev1.Pod, node *corev1.Node, others []*corev1.Pod, shared bool, reserved []int32) *podstatus.Verdict {
	mode := crispec.CNI
	if shared {
		mode = crispec.Host
	}
	if _, err := crispec.Sysctls(pod, mode); err != nil {
		return Refuse(reasonSysctl, err.Error())
	}
	if verdict := Defend(pod); verdict != nil {
		return verdict
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name != corev1.Linux {
		return Refuse(reasonPodOS, "Failed to admit pod as the OS field doesn't match node OS")
	}
	if verdict := Fits(pod, node, others); verdict != nil {
		return verdict
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !matches {
		return Refuse(reasonNodeAffinity, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
	}
	if shared {
		if verdict := portsFree(pod, others, reserved); verdict != nil {
			return verdict
		}
	}
	// Like the kubelet: NoSchedule is the scheduler's matter, and nodeName skips that.
	noExecute := func(t *corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }
	if taint, untolerated := schedulingv1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, noExecute, true); untolerated {
		return Refuse(reasonTaintToleration, fmt.Sprintf("Predicate TaintToleration failed: node(s) had taint %s that the pod didn't tolerate", taint.ToString()))
	}
	return nil
}

// RejectedPrefix begins the status message of a refused pod, as on a kubelet.
const RejectedPrefix = "Pod was rejected: "

// Refuse is the verdict on a pod that is not admitted.
func Refuse(reason, message string) *podstatus.Verdict {
	return &podstatus.Verdict{Reason: reason, Message: RejectedPrefix + message, NotAdmitted: true}
}

// OutOfCards refuses a pod that the numbers allowed but the cards do not.
func OutOfCards(err error) *podstatus.Verdict {
	resource, short := contract.GPUResource, (*gpuallocation.Shortage)(nil)
	if errors.As(err, &short) {
		resource = short.Resource
	}
	return Refuse("OutOf"+string(resource), fmt.Sprintf("Node didn't have enough resource: %s, %v", resource, err))
}

// Fits compares requests with what is left of the node's allocatable.
func Fits(pod *corev1.Pod, node *corev1.Node, others []*corev1.Pod) *podstatus.Verdict {
	allocatable := node.Status.Allocatable
	if limit, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others)+1) > limit.Value() {
		count := func(n int) quantity.Quantity { return *quantity.NewQuantity(int64(n), quantity.DecimalSI) }
		return outOf(corev1.ResourcePods, count(1), count(len(others)), limit)
	}
	used := corev1.ResourceList{}
	for _, other := range others {
		addTo(used, requests(other))
	}
	wanted := requests(pod)
	names := make([]corev1.ResourceName, 0, len(wanted))
	for name := range wanted {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		want, taken, has := wanted[name], used[name], allocatable[name]
		if want.IsZero() {
			continue
		}
		if name == corev1.ResourceEphemeralStorage {
			if _, counted := allocatable[name]; !counted {
				continue
			}
		}
		// Compared as quantities: what an API object asks for may be no int64.
		left := has.DeepCopy()
		left.Sub(taken)
		if want.Cmp(left) > 0 {
			return outOf(name, want, taken, has)
		}
	}
	return nil
}

// outOf words a shortage as the kubelet does; cpu is in thousandths.
func outOf(name corev1.ResourceName, requested, used, capacity quantity.Quantity) *podstatus.Verdict {
	number := func(q quantity.Quantity) string {
		switch {
		case q.CmpInt64(math.MaxInt64/1000) > 0:
			return q.String() // no int64 holds it, in thousandths
		case name == corev1.ResourceCPU:
			return strconv.FormatInt(q.MilliValue(), 10)
		default:
			return strconv.FormatInt(q.Value(), 10)
		}
	}
	return Refuse("OutOf"+string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %s, used: %s, capacity: %s",
		name, number(requested), number(used), number(capacity)))
}

func requests(pod *corev1.Pod) corev1.ResourceList {
	return resource.PodRequests(pod, resource.PodResourcesOptions{})
}

func addTo(total, more corev1.ResourceList) {
	for name, q := range more {
		sum := total[name]
		sum.Add(q)
		total[name] = sum
	}
}

// OfDaemonSet reports whether a DaemonSet made the pod. Such pods are left
// Pending: a failed one would be made again and again.
func OfDaemonSet(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet"
}
