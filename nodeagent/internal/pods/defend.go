package pods

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
// The pod's API object may say anything; nothing turns this off.
func hostAccess(pod *corev1.Pod) (field, why string) {
	return firstDefended(pod, func(string) bool { return true })
}

// defend refuses a pod by hostAccess; nil if there is nothing to refuse.
func defend(pod *corev1.Pod) *podstatus.Verdict {
	if field, why := hostAccess(pod); field != "" {
		return refuse(reasonNotSupported, fmt.Sprintf("%s: %s", field, why))
	}
	return nil
}

// debugAccess is hostAccess for the ephemeral containers alone: they come after
// the pod has been admitted.
func debugAccess(pod *corev1.Pod, container string) (field, why string) {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == container {
			its := fmt.Sprintf("spec.ephemeralContainers[%d].", i)
			return firstDefended(pod, func(field string) bool { return strings.HasPrefix(field, its) })
		}
	}
	return "", ""
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
