package podstatus

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// Waiting reasons as the kubelet names them.
const (
	ContainerCreating          = "ContainerCreating"
	PodInitializing            = "PodInitializing"
	CrashLoopBackOff           = "CrashLoopBackOff"
	ImagePullBackOff           = "ImagePullBackOff"
	ErrImagePull               = "ErrImagePull"
	CreateContainerConfigError = "CreateContainerConfigError"
	CreateContainerError       = "CreateContainerError"
	RunContainerError          = "RunContainerError"
	ContainerStatusUnknown     = "ContainerStatusUnknown"
)

// exitLost is the exit code that the kubelet gives a container it lost track of.
const exitLost = 137

// containerBuilder makes container statuses.
type containerBuilder struct {
	in     *Input
	old    *corev1.PodStatus
	newest map[string][]*runtimeapi.ContainerStatus
}

// newestByName groups containers by name, newest first.
func newestByName(containers []*runtimeapi.ContainerStatus) map[string][]*runtimeapi.ContainerStatus {
	byName := map[string][]*runtimeapi.ContainerStatus{}
	for _, c := range containers {
		byName[c.GetMetadata().GetName()] = append(byName[c.GetMetadata().GetName()], c)
	}
	return byName
}

// statuses gives one status for every container of the spec, in its order.
func (b *containerBuilder) statuses(specs []corev1.Container, old []corev1.ContainerStatus, init bool) []corev1.ContainerStatus {
	if len(specs) == 0 {
		return nil
	}
	statuses := make([]corev1.ContainerStatus, 0, len(specs))
	for i := range specs {
		statuses = append(statuses, b.status(&specs[i], find(old, specs[i].Name), init))
	}
	return statuses
}

func (b *containerBuilder) status(spec *corev1.Container, old *corev1.ContainerStatus, init bool) corev1.ContainerStatus {
	known := b.newest[spec.Name]
	var status corev1.ContainerStatus
	if len(known) == 0 {
		status = b.missing(spec, old, init)
	} else {
		status = b.present(spec, known, old)
	}
	status.VolumeMounts = volumeMounts(spec)
	status.AllocatedResourcesStatus = deviceHealth(b.in.Cards[spec.Name], old)
	b.applyWaiting(spec, &status)
	b.applyReadiness(spec, &status, known, init)
	return status
}

// present is the status of a container that the runtime knows.
func (b *containerBuilder) present(spec *corev1.Container, known []*runtimeapi.ContainerStatus, old *corev1.ContainerStatus) corev1.ContainerStatus {
	current := known[0]
	status := corev1.ContainerStatus{
		Name:         spec.Name,
		Image:        current.GetImage().GetImage(),
		ImageID:      current.ImageRef,
		ContainerID:  b.id(current),
		RestartCount: int32(current.GetMetadata().GetAttempt()), // attempts are counted by ourselves
		State:        b.state(current),
	}
	if status.Image == "" {
		status.Image = spec.Image
	}
	switch {
	case len(known) > 1:
		status.LastTerminationState = b.state(known[1])
	case old != nil && old.ContainerID == status.ContainerID:
		status.LastTerminationState = old.LastTerminationState
	case old != nil && old.State.Terminated != nil:
		status.LastTerminationState.Terminated = old.State.Terminated
	case old != nil && old.State.Running != nil:
		status.LastTerminationState.Terminated = lost(old) // as by a reboot
	case old != nil:
		status.LastTerminationState = old.LastTerminationState
	}
	if status.LastTerminationState.Terminated == nil {
		status.LastTerminationState = corev1.ContainerState{}
	}
	granted, ok := b.in.Granted[spec.Name]
	if !ok {
		granted = spec.Resources
	}
	status.Resources, status.AllocatedResources = granted.DeepCopy(), granted.DeepCopy().Requests
	if b.in.Resizing.Containers[spec.Name] && old != nil && old.Resources != nil {
		status.Resources = old.Resources.DeepCopy() // what it still has
	}
	if user := current.GetUser().GetLinux(); user != nil {
		status.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{
			UID: user.Uid, GID: user.Gid, SupplementalGroups: user.SupplementalGroups,
		}}
	}
	return status
}

// missing is the status of a container that the runtime does not know: not made
// yet, or lost.
func (b *containerBuilder) missing(spec *corev1.Container, old *corev1.ContainerStatus, init bool) corev1.ContainerStatus {
	reason := ContainerCreating
	if len(b.in.Pod.Spec.InitContainers) > 0 {
		reason = PodInitializing
	}
	status := corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
	}
	if init && !crispec.Sidecar(spec) && b.anyAppContainer() {
		// App containers exist, so this one has done its work and was cleaned away.
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
	}
	if old == nil {
		return status
	}
	if old.State.Terminated != nil {
		status = *old.DeepCopy()   // what is known last
		status.State.Running = nil // whatever others have written beside it
		return status
	}
	status.RestartCount = old.RestartCount
	status.LastTerminationState = old.LastTerminationState
	if old.State.Running != nil {
		if b.in.Ended {
			status.State = corev1.ContainerState{Terminated: lost(old)}
			status.ContainerID = old.ContainerID
		} else {
			status.LastTerminationState = corev1.ContainerState{Terminated: lost(old)}
			status.RestartCount++
		}
	}
	return status
}

// lost is the end of a container that ran when it was seen last.
func lost(old *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		Reason:      ContainerStatusUnknown,
		Message:     "The container could not be located when the pod was looked at. The container used to be Running",
		ExitCode:    exitLost,
		ContainerID: old.ContainerID,
	}
}

func (b *containerBuilder) anyAppContainer() bool {
	for i := range b.in.Pod.Spec.Containers {
		if len(b.newest[b.in.Pod.Spec.Containers[i].Name]) > 0 {
			return true
		}
	}
	return false
}

// applyWaiting turns a container that is going to be started (again) into a
// waiting one, with the reason that its worker remembers.
func (b *containerBuilder) applyWaiting(spec *corev1.Container, status *corev1.ContainerStatus) {
	waiting, ok := b.in.Waiting[spec.Name]
	if !ok || status.State.Running != nil || b.in.Ended {
		return
	}
	if status.State.Terminated != nil {
		status.LastTerminationState = corev1.ContainerState{Terminated: status.State.Terminated}
	}
	status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: waiting.Reason, Message: waiting.Message}}
}

func (b *containerBuilder) applyReadiness(spec *corev1.Container, status *corev1.ContainerStatus, known []*runtimeapi.ContainerStatus, init bool) {
	status.Started = ptr.To(false)
	switch {
	case status.State.Running != nil && len(known) > 0:
		probed, ok := b.in.Probes[known[0].Id]
		if !ok {
			probed = Probed{Started: true, Ready: true}
		}
		status.Started = ptr.To(probed.Started)
		// An init container is ready when it is done, and not while it works.
		status.Ready = probed.Started && probed.Ready && (!init || crispec.Sidecar(spec))
	case init && !crispec.Sidecar(spec) && status.State.Terminated != nil:
		status.Ready = status.State.Terminated.ExitCode == 0
	default:
		status.Ready = false
	}
}

func (b *containerBuilder) id(c *runtimeapi.ContainerStatus) string {
	return b.in.Runtime + "://" + c.Id
}

func (b *containerBuilder) state(c *runtimeapi.ContainerStatus) corev1.ContainerState {
	switch c.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: stamp(c.StartedAt)}}
	case runtimeapi.ContainerState_CONTAINER_EXITED, runtimeapi.ContainerState_CONTAINER_UNKNOWN:
		terminated := &corev1.ContainerStateTerminated{
			ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
			StartedAt: stamp(c.StartedAt), FinishedAt: stamp(c.FinishedAt), ContainerID: b.id(c),
		}
		if message, ok := b.in.Messages[c.Id]; ok && message != "" {
			terminated.Message = message
		}
		if c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
			terminated.Reason, terminated.ExitCode = ContainerStatusUnknown, exitLost
		}
		return corev1.ContainerState{Terminated: terminated}
	default: // created, not started yet
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: ContainerCreating}}
	}
}

// stamp turns CRI's nanoseconds into the API's seconds.
func stamp(nanoseconds int64) metav1.Time {
	return metav1.NewTime(time.Unix(0, nanoseconds)).Rfc3339Copy()
}

func volumeMounts(spec *corev1.Container) []corev1.VolumeMountStatus {
	var mounts []corev1.VolumeMountStatus
	for _, mount := range spec.VolumeMounts {
		status := corev1.VolumeMountStatus{Name: mount.Name, MountPath: mount.MountPath, ReadOnly: mount.ReadOnly}
		if mount.ReadOnly {
			status.RecursiveReadOnly = ptr.To(corev1.RecursiveReadOnlyDisabled)
			if rro := mount.RecursiveReadOnly; rro != nil && *rro == corev1.RecursiveReadOnlyEnabled {
				status.RecursiveReadOnly = rro // else it would not have been made
			}
		}
		mounts = append(mounts, status)
	}
	return mounts
}

func find(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}
