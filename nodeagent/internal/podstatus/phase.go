package podstatus

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// Restarts reports whether a container that ended with exitCode is started again
// by its policy: the container's own where it has one, else the pod's.
func Restarts(spec *corev1.PodSpec, c *corev1.Container, exitCode int32) bool {
	policy := spec.RestartPolicy
	if c.RestartPolicy != nil {
		for _, rule := range c.RestartPolicyRules {
			if rule.Action == corev1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, exitCode) {
				return true
			}
		}
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	} else if isInit(spec, c.Name) && policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure // an init container that succeeded is done
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default:
		return true
	}
}

func matches(codes *corev1.ContainerRestartRuleOnExitCodes, exitCode int32) bool {
	if codes == nil {
		return false
	}
	in := false
	for _, value := range codes.Values {
		in = in || value == exitCode
	}
	return in == (codes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

func isInit(spec *corev1.PodSpec, name string) bool {
	for i := range spec.InitContainers {
		if spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}

// phase is the pod's phase by the kubelet's rules.
func phase(in *Input, status *corev1.PodStatus) corev1.PodPhase {
	spec := &in.Pod.Spec
	initializing := false
	var running, waiting, ended, succeeded, restarting int
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		state := find(status.InitContainerStatuses, c.Name)
		if crispec.Sidecar(c) {
			if state.State.Running == nil && state.State.Terminated == nil && state.LastTerminationState.Terminated == nil ||
				state.State.Running != nil && !*state.Started {
				initializing = true
			}
			if state.State.Running != nil {
				running++ // a pod is not over while its sidecars live
			}
			continue
		}
		ended := lastEnd(state)
		if ended == nil {
			initializing = true
		} else if ended.ExitCode != 0 && (in.Ended || !Restarts(spec, c, ended.ExitCode)) {
			return corev1.PodFailed
		} else if ended.ExitCode != 0 {
			initializing = true
		}
	}

	for i := range spec.Containers {
		c := &spec.Containers[i]
		state := find(status.ContainerStatuses, c.Name)
		if state.State.Running != nil {
			running++
			continue
		}
		end := lastEnd(state)
		if end == nil {
			waiting++
			continue
		}
		ended++
		if end.ExitCode == 0 {
			succeeded++
		}
		if !in.Ended && Restarts(spec, c, end.ExitCode) {
			restarting++
		}
	}
	switch {
	case waiting > 0, initializing && running == 0 && ended == 0:
		if in.Ended && ended > 0 {
			return corev1.PodFailed
		}
		return corev1.PodPending
	case running > 0, restarting > 0:
		return corev1.PodRunning
	case succeeded == ended:
		return corev1.PodSucceeded
	default:
		return corev1.PodFailed
	}
}

// lastEnd is how the container ended if it does not run: its own end, or the
// one before if it waits to be started again; nil if it never ended.
func lastEnd(state *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case state.State.Running != nil:
		return nil
	case state.State.Terminated != nil:
		return state.State.Terminated
	default:
		return state.LastTerminationState.Terminated
	}
}
