package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Event reasons, as the kubelet names them.
const (
	eventCreated           = "Created"
	eventStarted           = "Started"
	eventKilling           = "Killing"
	eventBackOff           = "BackOff"
	eventFailed            = "Failed"
	eventFailedMount       = "FailedMount"
	eventFailedUnmount     = "FailedUnmount" // a kubelet tells nobody
	eventVolumeCondition   = "VolumeConditionAbnormal"
	eventFailedSandbox     = "FailedCreatePodSandBox"
	eventFailedKill        = "FailedKillPod"
	eventSandboxChanged    = "SandboxChanged"
	eventFailedPostStart   = "FailedPostStartHook"
	eventFailedPreStop     = "FailedPreStopHook"
	eventHTTPFallback      = "LifecycleHTTPFallback"
	eventResizeError       = "ResizeError"
	eventDNSConfig         = "DNSConfigForming"
	eventDeadlineExceeded  = "DeadlineExceeded"
	eventGPUFault          = "GPUFault"
	eventGPUError          = "GPUError"
	eventDaemonSetNotRun   = "DaemonSetNotSupported"
	messageDaemonSetNotRun = "AI nodes run no DaemonSet pods; this pod is left Pending and uses nothing"
)

// containerRef refers to one container of a pod, as events about it do.
func containerRef(pod *corev1.Pod, container string) *corev1.ObjectReference {
	ref := podRef(pod)
	field := "containers"
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container {
			field = "initContainers"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == container {
			field = "ephemeralContainers"
		}
	}
	ref.FieldPath = fmt.Sprintf("spec.%s{%s}", field, container)
	return ref
}

func podRef(pod *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name,
		UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
}

func (w *worker) event(ref *corev1.ObjectReference, kind, reason, message string) {
	w.m.o.Recorder.Event(ref, kind, reason, message)
}
