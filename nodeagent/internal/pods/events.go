package pods

import (
	"fmt"
	"regexp"
	"time"

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

// repeatEvents is how often a warning about the same trouble is said again.
const repeatEvents = 2 * time.Minute

// tell publishes a warning, unless the same (by key and sameness) was said lately.
func (w *worker) tell(ref *corev1.ObjectReference, key, reason, sameness, message string) {
	now := w.m.o.Clock.Now()
	sameness = withoutIDs(sameness)
	if before, ok := w.told[key]; ok && before.message == sameness && now.Sub(before.at) < repeatEvents {
		return
	}
	w.told[key] = told{message: sameness, at: now}
	w.event(ref, corev1.EventTypeWarning, reason, message)
}

// ids are what the runtime names sandboxes and containers by.
var ids = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// withoutIDs is a text of the runtime without the ids in it, which are others at
// each try.
func withoutIDs(text string) string { return ids.ReplaceAllString(text, "…") }

// tellOnce publishes a warning about the pod once in the agent's life.
func (w *worker) tellOnce(pod *corev1.Pod, reason, message string) {
	key := reason + message
	if _, said := w.told[key]; !said {
		w.tell(podRef(pod), key, reason, message, message)
	}
}
