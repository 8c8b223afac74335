// Package podtest makes pods, and what GPUs are told of, for the tests of other rooms.
package podtest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// Pod is a pod of the given restart policy with app containers of those names.
func Pod(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec:       corev1.PodSpec{RestartPolicy: policy},
	}
	for _, name := range names {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "i"})
	}
	return pod
}

// WithInit adds init containers of those names.
func WithInit(pod *corev1.Pod, names ...string) *corev1.Pod {
	for _, name := range names {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name, Image: "i"})
	}
	return pod
}

// WithSidecar adds a sidecar of that name.
func WithSidecar(pod *corev1.Pod, name string) *corev1.Pod {
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{
		Name: name, Image: "i", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
	})
	return pod
}

// Asking gives the pod's container that many GPUs.
func Asking(pod *corev1.Pod, container string, gpus int64) *corev1.Pod {
	return AskingFor(pod, container, contract.GPUResource, gpus)
}

// AskingFor gives the pod's container that many of something, besides what it has.
func AskingFor(pod *corev1.Pod, container string, name corev1.ResourceName, n int64) *corev1.Pod {
	c := find(pod, container)
	if c.Resources.Limits == nil {
		c.Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{}, Requests: corev1.ResourceList{}}
	}
	c.Resources.Limits[name] = *resource.NewQuantity(n, resource.DecimalSI)
	c.Resources.Requests[name] = c.Resources.Limits[name]
	return pod
}

func find(pod *corev1.Pod, name string) *corev1.Container {
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	panic(fmt.Sprintf("the pod has no container %q", name))
}

// Device is a whole card, or a slice, which is called CARD_mig-KIND_NAME.
func Device(uuid string) topology.Device {
	d := topology.Device{UUID: uuid, Card: uuid, Resource: contract.GPUResource}
	if card, kind, slice := strings.Cut(uuid, "_"); slice {
		kind, _, _ = strings.Cut(kind, "_")
		d.Card, d.Resource = card, corev1.ResourceName("nvidia.com/"+kind)
	}
	return d
}

// Usable are those devices, all well.
func Usable(uuids ...string) []topology.Device {
	var all []topology.Device
	for _, uuid := range uuids {
		d := Device(uuid)
		d.Usable = true
		all = append(all, d)
	}
	return all
}
