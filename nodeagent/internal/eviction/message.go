package eviction

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// starved words why the pod is evicted, as the kubelet does, and gives what its
// event is annotated with.
func starved(signal Signal, c candidate, reading Reading, limit int64) (message string, annotations map[string]string) {
	name := resourceOf(signal)
	format := resource.BinarySI
	if name == inodes || name == pids {
		format = resource.DecimalSI
	}
	message = fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ", name,
		resource.NewQuantity(limit, format), resource.NewQuantity(reading.Available, format))
	annotations = map[string]string{"starved_resource": string(name)}
	if c.used == nil {
		return message, annotations
	}
	var names, amounts []string
	for i := range c.used.Containers {
		container := find(c.pod, c.used.Containers[i].Name)
		used, known := usedOf(name, &c.used.Containers[i])
		if container == nil || !known {
			continue
		}
		request := container.Resources.Requests[name]
		if used.Cmp(request) > 0 {
			message += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %s. ", container.Name, &used, &request, name)
			names, amounts = append(names, container.Name), append(amounts, used.String())
		}
	}
	annotations["offending_containers"] = strings.Join(names, ",")
	annotations["offending_containers_usage"] = strings.Join(amounts, ",")
	return message, annotations
}

func usedOf(name corev1.ResourceName, c *stats.ContainerStats) (used resource.Quantity, known bool) {
	switch {
	case name == corev1.ResourceMemory && c.Memory != nil && c.Memory.WorkingSetBytes != nil:
		return *resource.NewQuantity(bytesOf(c.Memory), resource.BinarySI), true
	case name == corev1.ResourceEphemeralStorage && c.Rootfs != nil && c.Logs != nil:
		return *resource.NewQuantity(number(c.Rootfs.UsedBytes)+number(c.Logs.UsedBytes), resource.BinarySI), true
	}
	return resource.Quantity{}, false
}

// find is the container of that name that may ask for resources; nil if none.
func find(pod *corev1.Pod, name string) *corev1.Container {
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}
