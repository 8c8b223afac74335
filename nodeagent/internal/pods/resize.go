package pods

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/admission"
	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// A pod's cpu and memory can be changed while it runs (KEP-1287): the spec says what
// is wanted, the node grants it if there is room, and then the containers get it, by a
// restart where their resizePolicy says so.

// granted are the resources that the pod may use, by container name.
type granted map[string]corev1.ResourceRequirements

func grantedBy(pod *corev1.Pod) granted {
	g := granted{}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			g[containers[i].Name] = containers[i].Resources
		}
	}
	return g
}

// in is pod with these resources instead of those that it wants, if it wants others.
func (g granted) in(pod *corev1.Pod) *corev1.Pod {
	if g == nil || equality.Semantic.DeepEqual(g, grantedBy(pod)) {
		return pod
	}
	pod = pod.DeepCopy()
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if r, ok := g[containers[i].Name]; ok {
				containers[i].Resources = *r.DeepCopy()
			}
		}
	}
	return pod
}

// grant gives the pod the resources that it wants, if the node has them. Otherwise it
// notes why not, and the task goes on with a pod that asks for what it has.
func (w *worker) grant(t *task) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	have := w.granted.in(t.pod)
	reason, why := corev1.PodReasonInfeasible, (*podstatus.Verdict)(nil)
	if have != t.pod {
		if why = admission.Fits(t.pod, w.m.o.Node(), nil); why == nil {
			reason, why = corev1.PodReasonDeferred, admission.Fits(t.pod, w.m.o.Node(), w.m.others(w.uid))
		}
	}
	w.resizing.Pending = nil
	if why != nil {
		message := why.Message[len(admission.RejectedPrefix):]
		w.resizing.Pending = &podstatus.Waiting{Reason: reason, Message: message}
		w.tell(podRef(t.pod), "Resize", "Resize"+reason, message, message)
		t.pod = have
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.granted, w.wants = grantedBy(t.pod), why != nil
}

// roomFreed lets pods look again that wait for more resources.
func (m *Manager) roomFreed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		w.mu.Lock()
		if w.wants {
			w.poke(false)
		}
		w.mu.Unlock()
	}
}

// resize gives the running containers what has been granted, and notes those that
// must be restarted for it.
func (w *worker) resize(ctx context.Context, t *task) {
	memory := w.m.o.Node().Status.Capacity[corev1.ResourceMemory]
	w.resizing.Containers, w.resizing.Error = nil, ""
	var changes []func() error
	for _, last := range t.actual.Containers {
		c := findContainer(t.pod, last.GetMetadata().GetName())
		have := last.GetResources().GetLinux()
		if c == nil || have == nil || last.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		want := crispec.Resources(t.pod, c, memory.Value())
		cpu := have.CpuShares != want.CpuShares || have.CpuQuota != want.CpuQuota
		bytes := have.MemoryLimitInBytes != want.MemoryLimitInBytes
		switch {
		case !cpu && !bytes:
		case cpu && restartsFor(c, corev1.ResourceCPU), bytes && restartsFor(c, corev1.ResourceMemory):
			w.resized[last.Id] = true
			w.resizing.Note(c.Name)
		default:
			w.resizing.Note(c.Name)
			changes = append(changes, func() error {
				err := w.m.o.Runtime.UpdateContainerResources(ctx, last.Id, &runtimeapi.ContainerResources{Linux: want})
				if err != nil {
					return fmt.Errorf("resize container %q: %w", c.Name, err)
				}
				have.CpuShares, have.CpuQuota, have.CpuPeriod, have.MemoryLimitInBytes = want.CpuShares, want.CpuQuota, want.CpuPeriod, want.MemoryLimitInBytes
				delete(w.resizing.Containers, c.Name)
				return nil
			})
		}
	}
	if len(w.resizing.Containers) == 0 {
		return
	}
	// The pod's cgroup must never be narrower than what is in it.
	limits := crispec.LimitsOf(t.pod)
	err := w.limit(t.pod, wider(w.limits, limits))
	for _, change := range changes {
		if err == nil {
			err = change()
		}
	}
	if err == nil && len(w.resizing.Containers) == 0 { // else when those have ended that are restarted
		err = w.limit(t.pod, limits)
	}
	if err != nil {
		w.resizing.Error = err.Error()
		w.tell(podRef(t.pod), "Resize", eventResizeError, err.Error(), err.Error())
	}
}

// restartsFor reports whether the container must be restarted when its share of the
// resource changes.
func restartsFor(c *corev1.Container, name corev1.ResourceName) bool {
	for _, policy := range c.ResizePolicy {
		if policy.ResourceName == name {
			return policy.RestartPolicy == corev1.RestartContainer
		}
	}
	return false
}

// limit limits the cgroup around the pod's containers, unless that has been done.
func (w *worker) limit(pod *corev1.Pod, limits crispec.PodLimits) error {
	if w.limits != nil && *w.limits == limits {
		return nil
	}
	if err := cgroup.Limit(cgroup.Mount, crispec.PodCgroup(w.m.o.CgroupParent, pod.UID), cgroup.Limits(limits)); err != nil {
		return err
	}
	w.limits = &limits
	return nil
}

// wider is the wider of both limits, of each resource.
func wider(before *crispec.PodLimits, after crispec.PodLimits) crispec.PodLimits {
	if before == nil {
		return crispec.PodLimits{CPUShares: after.CPUShares, CPUQuota: cgroup.None, CPUPeriod: after.CPUPeriod, Memory: cgroup.None}
	}
	widest := func(a, b int64) int64 {
		if a == cgroup.None || b == cgroup.None {
			return cgroup.None
		}
		return max(a, b)
	}
	after.CPUQuota, after.Memory = widest(before.CPUQuota, after.CPUQuota), widest(before.Memory, after.Memory)
	return after
}
