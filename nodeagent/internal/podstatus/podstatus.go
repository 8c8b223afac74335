// Package podstatus computes the status of a pod as a kubelet writes it, from the
// pod, what the runtime holds of it, and what its worker remembers. It is pure:
// the same input gives the same status.
package podstatus

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Waiting is why a container does not run, and its text.
type Waiting struct {
	Reason  string
	Message string
}

// Probed is what the probes of a running container say.
type Probed struct {
	// Started is false until the startup probe has succeeded.
	Started bool
	// Ready is false unless the readiness probe succeeds.
	Ready bool
}

// Resizing is what is not done yet of a change of a pod's resources (KEP-1287).
type Resizing struct {
	// Pending is why the wish is not granted: Infeasible or Deferred.
	Pending *Waiting
	// Containers do not have yet what was granted.
	Containers map[string]bool
	// Error is why not.
	Error string
}

// Note adds a container.
func (r *Resizing) Note(container string) {
	if r.Containers == nil {
		r.Containers = map[string]bool{}
	}
	r.Containers[container] = true
}

// Verdict ends a pod from outside of its containers: refused at admission,
// deadline exceeded, evicted. Phase Failed with this reason and message.
type Verdict struct {
	Reason  string
	Message string
	// NotAdmitted tells a pod that never had a container from one that was ended.
	NotAdmitted bool
	// Grace is how long its containers may take to end from when the node orders it, at
	// most; nil: as long as the pod itself allows.
	Grace *time.Duration
	// Disruption says that the node ends the pod for its own sake, which is told by a
	// condition: a Job's pod that ended so is no failure of the Job.
	Disruption bool
}

// Card is a GPU that a container has, or a MIG slice of one.
type Card struct {
	UUID string
	// Resource is what it is counted as.
	Resource corev1.ResourceName
	// Trouble is why no other pod would get it now; empty if it is well.
	Trouble string
}

// Fault of a pod's GPU, which none of the pod's doings caused: a condition of the pod
// says so, by which a Job's podFailurePolicy can tell it from a failure of its own.
type Fault struct{ Reason, Message string }

// Input is all that a status is made from.
type Input struct {
	// Pod is the API object; Pod.Status is the API's latest status, from which
	// conditions of others, terminal phases and start time are taken over.
	Pod *corev1.Pod
	// Previous is the status computed last, where it may be newer than the API's.
	Previous *corev1.PodStatus
	// Sandbox is the newest sandbox, nil if there is none.
	Sandbox *runtimeapi.PodSandboxStatus
	// Containers are all containers of the pod in the runtime, newest first.
	Containers []*runtimeapi.ContainerStatus
	// Runtime is the runtime's name, the scheme of container ids ("containerd").
	Runtime string
	// Waiting is why containers do not run, by container name.
	Waiting map[string]Waiting
	// Messages are termination messages, by container id.
	Messages map[string]string
	// Probes are probe results by container id; a running container without an
	// entry counts as started and ready.
	Probes map[string]Probed
	// Granted are the resources that containers may use, by name; what they ask for
	// where there is no entry.
	Granted map[string]corev1.ResourceRequirements
	// Resizing is what is not done yet of a change of resources.
	Resizing Resizing
	// Verdict ends the pod; nil for nearly all.
	Verdict *Verdict
	// Cards are the GPUs of the pod's containers, by container name.
	Cards map[string][]Card
	// Fault is what befell one of them; nil for nearly all.
	Fault *Fault
	// Ended says that no container of the pod runs and none will be started.
	Ended bool
	// HostIPs are the node's addresses, the preferred one first.
	HostIPs []string
	// HostNetwork says that the pod shares the node's addresses.
	HostNetwork bool
	// Now stamps start time and condition transitions.
	Now time.Time
}

// Compute returns the status of the pod.
func Compute(in Input) corev1.PodStatus {
	old := in.Pod.Status
	if in.Previous != nil {
		old = *in.Previous
	}
	now := metav1.NewTime(in.Now).Rfc3339Copy()

	status := corev1.PodStatus{
		ObservedGeneration: in.Pod.Generation,
		QOSClass:           in.Pod.Status.QOSClass,
		StartTime:          old.StartTime,
		NominatedNodeName:  in.Pod.Status.NominatedNodeName,
		// Owned by others or by later rooms: carried over as they are.
		ResourceClaimStatuses: in.Pod.Status.ResourceClaimStatuses,
		Resize:                in.Pod.Status.Resize,
	}
	if status.QOSClass == "" {
		status.QOSClass = QOS(in.Pod)
	}
	if status.StartTime == nil {
		status.StartTime = &now
	}
	setAddresses(&status, &in, &old)

	if in.Verdict != nil && in.Verdict.NotAdmitted {
		status.Phase = corev1.PodFailed
		status.Reason, status.Message = in.Verdict.Reason, in.Verdict.Message
		status.Conditions = old.Conditions
		status.PodIP, status.PodIPs = "", nil
		return status
	}

	builder := containerBuilder{in: &in, old: &old, newest: newestByName(in.Containers)}
	status.InitContainerStatuses = builder.statuses(in.Pod.Spec.InitContainers, old.InitContainerStatuses, true)
	status.ContainerStatuses = builder.statuses(in.Pod.Spec.Containers, old.ContainerStatuses, false)
	status.EphemeralContainerStatuses = builder.statuses(ephemeral(in.Pod), old.EphemeralContainerStatuses, false)

	status.Phase = phase(&in, &status)
	if terminal := firstTerminal(in.Pod.Status.Phase, old.Phase); terminal != "" {
		status.Phase = terminal // a pod never leaves a terminal phase
	}
	if status.Phase == old.Phase {
		status.Reason, status.Message = old.Reason, old.Message
	}
	if in.Verdict != nil {
		status.Phase = corev1.PodFailed
		status.Reason, status.Message = in.Verdict.Reason, in.Verdict.Message
	}
	if Terminal(status.Phase) && !in.Ended && !Terminal(in.Pod.Status.Phase) && !Terminal(old.Phase) {
		// Whoever reads a terminal phase gives the pod's cards and its place away: it
		// is told when the last process has ended and none will follow, not before.
		status.Phase, status.Reason, status.Message = cmp.Or(old.Phase, corev1.PodPending), old.Reason, old.Message
	}
	status.Conditions = conditions(&in, &old, &status, now)
	return status
}

// Terminal reports whether a pod in this phase will never run again.
func Terminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func firstTerminal(phases ...corev1.PodPhase) corev1.PodPhase {
	for _, phase := range phases {
		if Terminal(phase) {
			return phase
		}
	}
	return ""
}

func setAddresses(status *corev1.PodStatus, in *Input, old *corev1.PodStatus) {
	for _, ip := range in.HostIPs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: ip})
	}
	var podIPs []string
	switch {
	case in.HostNetwork && in.Sandbox != nil:
		podIPs = in.HostIPs
	case in.Sandbox.GetNetwork().GetIp() != "":
		podIPs = append(podIPs, in.Sandbox.Network.Ip)
		for _, more := range in.Sandbox.Network.AdditionalIps {
			podIPs = append(podIPs, more.Ip)
		}
	}
	for _, ip := range podIPs {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(status.PodIPs) == 0 {
		status.PodIPs = old.PodIPs // kept while the pod's last state is shown
	}
	if len(status.HostIPs) > 0 {
		status.HostIP = status.HostIPs[0].IP
	}
	if len(status.PodIPs) > 0 {
		status.PodIP = status.PodIPs[0].IP
	}
}

func ephemeral(pod *corev1.Pod) []corev1.Container {
	var containers []corev1.Container
	for i := range pod.Spec.EphemeralContainers {
		containers = append(containers, corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return containers
}
