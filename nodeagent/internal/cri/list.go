package cri

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Pod is what the runtime holds of one pod UID: the actual state.
type Pod struct {
	UID       types.UID
	Namespace string
	Name      string
	// Sandboxes, newest first: by attempts, then by time.
	Sandboxes []*runtimeapi.PodSandbox
	// SandboxStatus is the status of the newest sandbox; nil if there is none.
	SandboxStatus *runtimeapi.PodSandboxStatus
	// Containers, dead ones included; of one name the newest first.
	Containers []*runtimeapi.ContainerStatus
	// SandboxOf is the sandbox of each container, by container id.
	SandboxOf map[string]string
}

// Lister reads actual state from a runtime. It remembers the statuses of dead
// containers, which never change, and is safe for concurrent use.
type Lister struct {
	service criapi.RuntimeService
	dead    deadCache
}

// NewLister returns a Lister on service.
func NewLister(service criapi.RuntimeService) *Lister {
	return &Lister{service: service, dead: deadCache{byID: map[string]*runtimeapi.ContainerStatus{}}}
}

// Pod returns what the runtime holds of the pod; an empty Pod if nothing.
func (l *Lister) Pod(ctx context.Context, uid types.UID) (*Pod, error) {
	selector := map[string]string{kubelettypes.KubernetesPodUIDLabel: string(uid)}
	pods, err := l.list(ctx, selector)
	if err != nil {
		return nil, fmt.Errorf("list pod %q in the runtime: %w", uid, err)
	}
	if pod, ok := pods[uid]; ok {
		return pod, nil
	}
	return &Pod{UID: uid}, nil
}

// Pods returns every pod that the runtime holds, by UID.
func (l *Lister) Pods(ctx context.Context) (map[types.UID]*Pod, error) {
	pods, err := l.list(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list the runtime's pods: %w", err)
	}
	return pods, nil
}

func (l *Lister) list(ctx context.Context, selector map[string]string) (map[types.UID]*Pod, error) {
	// Containers first: a container seen here has its sandbox in the second list.
	containers, err := l.service.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	sandboxes, err := l.service.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	pods := map[types.UID]*Pod{}
	for _, sandbox := range sandboxes {
		pod := podOf(pods, sandbox.Labels)
		pod.Sandboxes = append(pod.Sandboxes, sandbox)
	}
	for _, container := range containers {
		containerStatus, err := l.container(ctx, container)
		if IsNotFound(err) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		pod := podOf(pods, container.Labels)
		pod.Containers = append(pod.Containers, containerStatus)
		pod.SandboxOf[container.Id] = container.PodSandboxId
	}
	for _, pod := range pods {
		slices.SortStableFunc(pod.Sandboxes, func(a, b *runtimeapi.PodSandbox) int {
			return newestFirst(a.GetMetadata(), b.GetMetadata(), a.CreatedAt, b.CreatedAt)
		})
		slices.SortStableFunc(pod.Containers, func(a, b *runtimeapi.ContainerStatus) int {
			return newestFirst(a.GetMetadata(), b.GetMetadata(), a.CreatedAt, b.CreatedAt)
		})
		if len(pod.Sandboxes) == 0 {
			continue
		}
		response, err := l.service.PodSandboxStatus(ctx, pod.Sandboxes[0].Id, false)
		if err != nil && !IsNotFound(err) {
			return nil, err
		}
		pod.SandboxStatus = response.GetStatus()
	}
	return pods, nil
}

// newestFirst compares by attempts, which only grow; the machine's clock may have
// been set back since.
func newestFirst(a, b interface{ GetAttempt() uint32 }, madeA, madeB int64) int {
	return cmp.Or(cmp.Compare(b.GetAttempt(), a.GetAttempt()), cmp.Compare(madeB, madeA))
}

// podOf returns the entry of the pod that labels name, made if need be.
func podOf(pods map[types.UID]*Pod, labels map[string]string) *Pod {
	uid := types.UID(kubelettypes.GetPodUID(labels))
	pod, ok := pods[uid]
	if !ok {
		pod = &Pod{
			UID: uid, Namespace: kubelettypes.GetPodNamespace(labels), Name: kubelettypes.GetPodName(labels),
			SandboxOf: map[string]string{},
		}
		pods[uid] = pod
	}
	return pod
}

func (l *Lister) container(ctx context.Context, c *runtimeapi.Container) (*runtimeapi.ContainerStatus, error) {
	if c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		if known := l.dead.get(c.Id); known != nil {
			return known, nil
		}
	}
	response, err := l.service.ContainerStatus(ctx, c.Id, false)
	if err != nil {
		return nil, err
	}
	if response.Status.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		l.dead.put(response.Status)
	}
	return response.Status, nil
}

// Forget drops what is remembered of a container that has been removed.
func (l *Lister) Forget(containerID string) { l.dead.drop(containerID) }

// IsNotFound reports whether the runtime said that it does not know the thing.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }
