package pods

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/probes"
)

func (w *worker) newProbes() *probes.Set {
	return probes.New(probes.Options{
		Runtime: w.m.o.Runtime, Clock: w.m.o.Clock, Changed: w.look,
		Warn: func(container, reason, message string) {
			w.event(containerRef(w.object(), container), corev1.EventTypeWarning, reason, message)
		},
	})
}

// probe lets the probes follow what has been seen of the pod's containers.
func (w *worker) probe(ctx context.Context, t *task) {
	var containers []probes.Container
	for _, c := range t.actual.Containers {
		spec := findContainer(t.pod, c.GetMetadata().GetName())
		if spec == nil {
			continue // of a stub
		}
		containers = append(containers, probes.Container{
			ID: c.Id, Spec: spec, Running: c.State == runtimeapi.ContainerState_CONTAINER_RUNNING,
			StartedAt: time.Unix(0, c.StartedAt), Address: w.address(), Before: w.toldOf(t.pod, c.Id),
		})
	}
	w.probes.Follow(ctx, t.pod, containers, t.deleting() || w.verdict != nil)
}

// address is where the pod's ports are.
func (w *worker) address() string {
	if ips := w.addresses(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

// toldOf is what the API says of the container's probes, nil if it does not know it:
// none has told yet of one that this run of the agent has started.
func (w *worker) toldOf(pod *corev1.Pod, id string) *podstatus.Probed {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if s := &statuses[i]; s.ContainerID == w.m.o.RuntimeName+"://"+id {
				return &podstatus.Probed{Started: s.Started != nil && *s.Started, Ready: s.Ready}
			}
		}
	}
	return nil
}
