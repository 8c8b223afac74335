package pods

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// publish computes the pod's status and has it written, without waiting. ended
// says that nothing of the pod runs and nothing will.
func (w *worker) publish(t *task, ended bool) {
	if t.absent {
		return
	}
	// What has come since the task's pod was read, from which probes have been told how
	// containers were, is for the next look.
	online := t.pod.ResourceVersion != ""
	status := w.compute(t, ended, online)
	w.mu.Lock()
	w.status, w.online = &status, online
	w.mu.Unlock()
	if online {
		w.writer.Set(status)
	}
}

func (w *worker) compute(t *task, ended, online bool) corev1.PodStatus {
	w.readMessages(t)
	w.mu.Lock()
	previous := w.status
	if online && !w.online {
		previous = nil // made before the API's status was known, which has more in it
	}
	w.mu.Unlock()
	pod := t.pod
	if latest := w.object(); latest != nil && latest.UID == pod.UID {
		pod = latest // conditions that others wrote meanwhile
	}
	cards, fault := w.health()
	return podstatus.Compute(podstatus.Input{
		Pod: pod, Previous: previous,
		Sandbox: t.actual.SandboxStatus, Containers: t.actual.Containers,
		Runtime: w.m.o.RuntimeName, Waiting: w.waiting, Messages: w.messages,
		Probes: w.probes.Results(), Granted: w.granted, Resizing: w.resizing, Verdict: w.verdict, Ended: ended,
		Cards: cards, Fault: fault,
		HostIPs: w.m.o.HostIPs(), HostNetwork: w.m.shared(),
		Now: w.m.o.Clock.Now(),
	})
}

// readMessages reads the termination messages of containers that have ended.
func (w *worker) readMessages(t *task) {
	w.forgetGone(t)
	for _, c := range t.actual.Containers {
		if _, known := w.messages[c.Id]; known || c.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			continue
		}
		if spec := findContainer(t.pod, c.GetMetadata().GetName()); spec != nil {
			w.messages[c.Id] = w.m.files.ReadMessage(w.uid, spec, c)
		}
	}
}

// forgetGone drops what is remembered of containers that the runtime has no more: a
// pod may crash for months.
func (w *worker) forgetGone(t *task) {
	there := map[string]bool{}
	for _, c := range t.actual.Containers {
		there[c.Id] = true
	}
	gone := func(id string) bool { return !there[id] }
	maps.DeleteFunc(w.messages, func(id, _ string) bool { return gone(id) })
	maps.DeleteFunc(w.killed, func(id string, _ bool) bool { return gone(id) })
	maps.DeleteFunc(w.resized, func(id string, _ bool) bool { return gone(id) })
}

// findContainer is the container of that name, of whatever kind; nil if none.
func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}
