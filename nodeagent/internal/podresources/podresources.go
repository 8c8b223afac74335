// Package podresources tells programs on the machine which container has which GPU or MIG
// slice: the kubelet's PodResources API, version 1 (KEP-606), on its usual socket.
// Monitors such as dcgm-exporter join it with what they measure.
package podresources

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// Pods are the node's.
type Pods interface {
	// Pods with their latest status.
	Pods() []*corev1.Pod
	// Devices are the UUIDs of the cards and slices that each of the pod's containers
	// has, by container name.
	Devices(uid types.UID) map[string][]string
}

// Cards are the machine's.
type Cards interface {
	Devices() []topology.Device
	Device(uuid string) topology.Device
}

// answers implements the API. CPUs and memory are nobody's own here, and there are no
// claims: those fields stay empty.
type answers struct {
	podresourcesv1.UnimplementedPodResourcesListerServer
	pods  Pods
	cards Cards
}

// List tells all pods that have not ended, also those that have no device.
func (a answers) List(context.Context, *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	answer := &podresourcesv1.ListPodResourcesResponse{}
	for _, pod := range a.pods.Pods() {
		if !podstatus.Terminal(pod.Status.Phase) {
			answer.PodResources = append(answer.PodResources, a.of(pod))
		}
	}
	slices.SortFunc(answer.PodResources, func(x, y *podresourcesv1.PodResources) int {
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	return answer, nil
}

// Get tells one pod; of two of one name that which was made last.
func (a answers) Get(_ context.Context, request *podresourcesv1.GetPodResourcesRequest) (*podresourcesv1.GetPodResourcesResponse, error) {
	var found *corev1.Pod
	for _, pod := range a.pods.Pods() {
		if pod.Namespace == request.PodNamespace && pod.Name == request.PodName &&
			(found == nil || found.CreationTimestamp.Before(&pod.CreationTimestamp)) {
			found = pod
		}
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "pod %s in namespace %s not found", request.PodName, request.PodNamespace)
	}
	return &podresourcesv1.GetPodResourcesResponse{PodResources: a.of(found)}, nil
}

// GetAllocatableResources tells what pods may have, whoever has it now.
func (a answers) GetAllocatableResources(context.Context, *podresourcesv1.AllocatableResourcesRequest) (*podresourcesv1.AllocatableResourcesResponse, error) {
	var usable []topology.Device
	for _, d := range a.cards.Devices() {
		if d.Usable {
			usable = append(usable, d)
		}
	}
	return &podresourcesv1.AllocatableResourcesResponse{Devices: byResource(usable)}, nil
}

// of tells what a pod's app containers and sidecars have, as a kubelet does: init
// containers use what the others have later.
func (a answers) of(pod *corev1.Pod) *podresourcesv1.PodResources {
	answer := &podresourcesv1.PodResources{Name: pod.Name, Namespace: pod.Namespace}
	devices := a.pods.Devices(pod.UID)
	add := func(container string) {
		var its []topology.Device
		for _, uuid := range devices[container] {
			its = append(its, a.cards.Device(uuid))
		}
		answer.Containers = append(answer.Containers, &podresourcesv1.ContainerResources{Name: container, Devices: byResource(its)})
	}
	for _, c := range pod.Spec.InitContainers {
		if crispec.Sidecar(&c) {
			add(c.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		add(c.Name)
	}
	return answer
}

// byResource groups devices.
func byResource(devices []topology.Device) []*podresourcesv1.ContainerDevices {
	ids := map[string][]string{}
	for _, d := range devices {
		ids[string(d.Resource)] = append(ids[string(d.Resource)], d.UUID)
	}
	var all []*podresourcesv1.ContainerDevices
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		all = append(all, &podresourcesv1.ContainerDevices{ResourceName: name, DeviceIds: ids[name]})
	}
	return all
}
