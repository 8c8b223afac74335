package gpuallocation

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// devicesNeeded is how many cards and slices of each kind the pod has at a time. App
// containers and sidecars have devices of their own; an init container is done before
// the app containers start, so it uses theirs.
func devicesNeeded(pod *corev1.Pod) map[corev1.ResourceName]int {
	own, sidecars, initPeak := map[corev1.ResourceName]int{}, map[corev1.ResourceName]int{}, map[corev1.ResourceName]int{}
	for i := range pod.Spec.Containers {
		for resource, n := range DevicesOf(&pod.Spec.Containers[i]) {
			own[resource] += n
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		for resource, n := range DevicesOf(c) {
			if crispec.Sidecar(c) {
				sidecars[resource] += n
			} else {
				initPeak[resource] = max(initPeak[resource], n)
			}
		}
	}
	for resource, n := range initPeak {
		own[resource] = max(own[resource], n)
	}
	for resource, n := range sidecars {
		own[resource] += n
	}
	return own
}

// spread divides the chosen devices, as many as are needed, among the pod's containers.
func spread(pod *corev1.Pod, chosen map[corev1.ResourceName][]string) Assignment {
	assigned := Assignment{}
	rest := chosen
	// give gives the container its devices, and returns those that others may have.
	give := func(c *corev1.Container, from map[corev1.ResourceName][]string) map[corev1.ResourceName][]string {
		left := map[corev1.ResourceName][]string{}
		asked := DevicesOf(c)
		for _, resource := range slices.Sorted(maps.Keys(from)) {
			n := asked[resource]
			if n > 0 {
				assigned[c.Name] = append(assigned[c.Name], from[resource][:n]...)
			}
			left[resource] = from[resource][n:]
		}
		return left
	}
	for i := range pod.Spec.InitContainers {
		if crispec.Sidecar(&pod.Spec.InitContainers[i]) {
			rest = give(&pod.Spec.InitContainers[i], rest)
		}
	}
	for i := range pod.Spec.InitContainers {
		if !crispec.Sidecar(&pod.Spec.InitContainers[i]) {
			give(&pod.Spec.InitContainers[i], rest)
		}
	}
	for i := range pod.Spec.Containers {
		rest = give(&pod.Spec.Containers[i], rest)
	}
	return assigned
}

// tooMany is more devices than any machine has. Counts end there, so that sums of what
// API objects ask for stay numbers.
const tooMany = 1 << 20

// DevicesOf is how many cards and slices of each kind the container asks for: its
// limits, which the API keeps equal to its requests.
func DevicesOf(c *corev1.Container) map[corev1.ResourceName]int {
	asked := map[corev1.ResourceName]int{}
	for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		for resource, quantity := range list {
			if !contract.IsGPUResource(resource) {
				continue
			}
			asked[resource] = tooMany
			if quantity.CmpInt64(tooMany) <= 0 {
				asked[resource] = max(int(quantity.Value()), 0)
			}
		}
	}
	return asked
}
