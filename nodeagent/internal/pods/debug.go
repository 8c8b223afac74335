package pods

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/admission"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// refuseDebug finds the ephemeral containers that may not run. Each is told once,
// and shows why; the pod goes on.
func (w *worker) refuseDebug(t *task) map[string]bool {
	refused := map[string]bool{}
	for i := range t.pod.Spec.EphemeralContainers {
		name := t.pod.Spec.EphemeralContainers[i].Name
		field, why := admission.DebugAccess(t.pod, name)
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
	if admission.LeaveOut(less.SecurityContext) {
		w.tell(containerRef(t.pod, c.Name), admission.NotSupported+c.Name, admission.NotSupported, admission.Unasked,
			"capability "+admission.Unasked+" is not given on AI nodes; the debug container runs without it")
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
