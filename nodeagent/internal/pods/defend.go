package pods

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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
// containers are judged one by one (debugAccess): they come after the pod, and must
// not harm it.
func hostAccess(pod *corev1.Pod) (field, why string) {
	return firstDefended(pod, func(field string) bool { return !strings.HasPrefix(field, "spec.ephemeralContainers") })
}

// defend refuses a pod by hostAccess; nil if there is nothing to refuse.
func defend(pod *corev1.Pod) *podstatus.Verdict {
	if field, why := hostAccess(pod); field != "" {
		return refuse(reasonNotSupported, fmt.Sprintf("%s: %s", field, why))
	}
	return nil
}

// debugAccess is hostAccess for one ephemeral container. A capability that can be
// left out is none of its reasons.
func debugAccess(pod *corev1.Pod, container string) (field, why string) {
	i := slices.IndexFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == container })
	if i < 0 {
		return "", ""
	}
	judged := pod.DeepCopy()
	leaveOut(judged.Spec.EphemeralContainers[i].SecurityContext)
	its := fmt.Sprintf("spec.ephemeralContainers[%d].", i)
	return firstDefended(judged, func(field string) bool { return strings.HasPrefix(field, its) })
}

// unasked is the capability that kubectl debug adds by itself (profile general, its
// default). It raises privilege; a debug container does its work without it.
const unasked = "SYS_PTRACE"

// leaveOut takes it away and reports whether it was there.
func leaveOut(s *corev1.SecurityContext) bool {
	if s == nil || s.Capabilities == nil {
		return false
	}
	before := len(s.Capabilities.Add)
	s.Capabilities.Add = slices.DeleteFunc(s.Capabilities.Add, func(c corev1.Capability) bool {
		return strings.TrimPrefix(string(c), "CAP_") == unasked
	})
	return len(s.Capabilities.Add) < before
}

// refuseDebug finds the ephemeral containers that may not run. Each is told once,
// and shows why; the pod goes on.
func (w *worker) refuseDebug(t *task) map[string]bool {
	refused := map[string]bool{}
	for i := range t.pod.Spec.EphemeralContainers {
		name := t.pod.Spec.EphemeralContainers[i].Name
		field, why := debugAccess(t.pod, name)
		if field == "" {
			continue
		}
		refused[name] = true
		message := fmt.Sprintf("%s: %s; debug with --profile=general, baseline or restricted", field, why)
		w.waiting[name] = podstatus.Waiting{Reason: podstatus.CreateContainerConfigError, Message: message}
		key := eventFailed + name
		if _, said := w.told[key]; !said {
			w.tell(containerRef(t.pod, name), key, eventFailed, message, "Error: "+message)
		}
	}
	return refused
}

// debugging is c without what an ephemeral container is not given, which is told.
func (w *worker) debugging(t *task, c *corev1.Container) *corev1.Container {
	if !slices.ContainsFunc(t.pod.Spec.EphemeralContainers, func(e corev1.EphemeralContainer) bool { return e.Name == c.Name }) {
		return c
	}
	less := c.DeepCopy()
	if leaveOut(less.SecurityContext) {
		w.tell(containerRef(t.pod, c.Name), reasonNotSupported+c.Name, reasonNotSupported, unasked,
			"capability "+unasked+" is not given on AI nodes; the debug container runs without it")
	}
	return less
}

// target is the id of the running container that the ephemeral container is to see
// the processes of (kubectl debug --target); empty if none.
func target(t *task, name string) (id string, err error) {
	for i := range t.pod.Spec.EphemeralContainers {
		c := &t.pod.Spec.EphemeralContainers[i]
		if c.Name != name || c.TargetContainerName == "" {
			continue
		}
		for _, last := range t.actual.Containers {
			if last.GetMetadata().GetName() == c.TargetContainerName && last.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				return last.Id, nil
			}
		}
		return "", fmt.Errorf("target container %q does not run", c.TargetContainerName)
	}
	return "", nil
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
