package podstatus

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// owned are the condition types that the node writes; all others are another's.
var owned = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady,
	corev1.ContainersReady, corev1.PodScheduled, corev1.PodResizePending, corev1.PodResizeInProgress,
}

// conditions keeps those of others and adds the node's own, in the kubelet's order.
func conditions(in *Input, old, status *corev1.PodStatus, now metav1.Time) []corev1.PodCondition {
	var all []corev1.PodCondition
	disruption := in.Verdict != nil && in.Verdict.Disruption
	for _, c := range in.Pod.Status.Conditions {
		if !slices.Contains(owned, c.Type) && !isFault(c) && (!disruption || c.Type != corev1.DisruptionTarget) {
			all = append(all, c)
		}
	}
	if c := faultCondition(in, old.Conditions, now); c != nil {
		all = append(all, *c)
	}
	ready := containersReady(in, status)
	own := []corev1.PodCondition{
		readyToStart(in), initialized(in, status), podReady(in, ready, all), ready,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	if disruption {
		own = append(own, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: corev1.PodReasonTerminationByKubelet, Message: in.Verdict.Message,
		})
	}
	for _, c := range append(own, resizing(in)...) {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = now
		for _, before := range old.Conditions {
			if before.Type == c.Type && before.Status == c.Status {
				c.LastTransitionTime = before.LastTransitionTime
			}
		}
		all = append(all, c)
	}
	return all
}

func readyToStart(in *Input) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}
	if in.Sandbox == nil || in.Sandbox.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		c.Status = corev1.ConditionFalse
	}
	return c
}

func initialized(in *Input, status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if status.Phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	for i := range status.ContainerStatuses {
		state := &status.ContainerStatuses[i]
		if state.State.Running != nil || state.State.Terminated != nil || state.LastTerminationState.Terminated != nil {
			return c // an app container ran, so the pod has been initialized
		}
	}
	var incomplete []string
	for i := range in.Pod.Spec.InitContainers {
		spec, state := &in.Pod.Spec.InitContainers[i], &status.InitContainerStatuses[i]
		if crispec.Sidecar(spec) && !*state.Started || !crispec.Sidecar(spec) && !state.Ready {
			incomplete = append(incomplete, spec.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func containersReady(in *Input, status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch status.Phase {
	case corev1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case corev1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	for i := range in.Pod.Spec.InitContainers {
		if crispec.Sidecar(&in.Pod.Spec.InitContainers[i]) && !status.InitContainerStatuses[i].Ready {
			unready = append(unready, in.Pod.Spec.InitContainers[i].Name)
		}
	}
	for i := range status.ContainerStatuses {
		if !status.ContainerStatuses[i].Ready {
			unready = append(unready, status.ContainerStatuses[i].Name)
		}
	}
	if len(unready) > 0 {
		c.Reason = "ContainersNotReady"
		c.Message = fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

// resizing are the conditions that are there only while resources change.
func resizing(in *Input) []corev1.PodCondition {
	var all []corev1.PodCondition
	if p := in.Resizing.Pending; p != nil {
		all = append(all, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: p.Reason, Message: p.Message})
	}
	if len(in.Resizing.Containers) > 0 {
		c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
		if in.Resizing.Error != "" {
			c.Reason, c.Message = corev1.PodReasonError, in.Resizing.Error
		}
		all = append(all, c)
	}
	return all
}

// podReady is containersReady and the pod's readiness gates, which others write.
func podReady(in *Input, ready corev1.PodCondition, others []corev1.PodCondition) corev1.PodCondition {
	c := ready
	c.Type = corev1.PodReady
	if ready.Status != corev1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range in.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(others, func(o corev1.PodCondition) bool { return o.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case others[i].Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, others[i].Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return c
}
