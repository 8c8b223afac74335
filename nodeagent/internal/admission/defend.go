package admission

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// defended are the rows of the support table that keep pods off the machine, and
// those of which the node has nothing to give. What the webhook removes by them
// must not reach the runtime from a pod that it has not seen.
var defended = []contract.Feature{
	"host-network", "host-port", "host-pid", "host-ipc", "host-path", "security-context",
	"volume-types", "resource-claims", "runtime-class",
}

// hostAccess defends the machine: it returns the first field by which the pod
// asks for more of the machine than a pod gets here, and why that is refused. It
// asks the same table as the webhook, in the column of what this agent honours.
// The pod's API object may say anything; nothing turns this off. Ephemeral
// containers are judged one by one (DebugAccess): they come after the pod, and must
// not harm it.
func hostAccess(pod *corev1.Pod) (field, why string) {
	return firstDefended(pod, func(field string) bool { return !strings.HasPrefix(field, "spec.ephemeralContainers") })
}

// Defend refuses a pod by hostAccess; nil if there is nothing to refuse.
func Defend(pod *corev1.Pod) *podstatus.Verdict {
	if field, why := hostAccess(pod); field != "" {
		return Refuse(NotSupported, fmt.Sprintf("%s: %s", field, why))
	}
	return nil
}

// DebugAccess is hostAccess for one ephemeral container. A capability that can be
// left out is none of its reasons.
func DebugAccess(pod *corev1.Pod, container string) (field, why string) {
	i := slices.IndexFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == container })
	if i < 0 {
		return "", ""
	}
	judged := pod.DeepCopy()
	LeaveOut(judged.Spec.EphemeralContainers[i].SecurityContext)
	its := fmt.Sprintf("spec.ephemeralContainers[%d].", i)
	return firstDefended(judged, func(field string) bool { return strings.HasPrefix(field, its) })
}

// Unasked is the capability that kubectl debug adds by itself (profile general, its
// default). It raises privilege; a debug container does its work without it.
const Unasked = "SYS_PTRACE"

// LeaveOut takes it away and reports whether it was there.
func LeaveOut(s *corev1.SecurityContext) bool {
	if s == nil || s.Capabilities == nil {
		return false
	}
	before := len(s.Capabilities.Add)
	s.Capabilities.Add = slices.DeleteFunc(s.Capabilities.Add, func(c corev1.Capability) bool {
		return strings.TrimPrefix(string(c), "CAP_") == Unasked
	})
	return len(s.Capabilities.Add) < before
}

func firstDefended(pod *corev1.Pod, in func(field string) bool) (field, why string) {
	projected, err := contract.FromPod(pod)
	if err != nil {
		return "spec", err.Error()
	}
	verdict, err := contract.Request{Pod: projected, Policy: contract.Policy{Profile: contract.ProfileAgent}}.Strip()
	if err != nil {
		return "spec", err.Error()
	}
	for _, f := range verdict.Findings {
		if !slices.Contains(defended, f.Feature) || !in(f.Field) {
			continue
		}
		// A runtime class for NVIDIA asks for what pods here have anyway.
		if f.Action == contract.Deny || f.Action == contract.Normalise || f.Action == contract.Strip && f.Feature != "runtime-class" {
			return f.Field, f.Detail
		}
	}
	return "", ""
}
