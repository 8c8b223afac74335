package admission

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// port is one port of the address that all pods share (network mode host).
type port struct {
	number   int32
	protocol corev1.Protocol
}

// portsFree refuses a pod one of whose containerPorts is reserved by the machine
// or declared by another pod, and names that pod.
func portsFree(pod *corev1.Pod, others []*corev1.Pod, reserved []int32) *podstatus.Verdict {
	wanted := portsOf(pod)
	for _, p := range wanted {
		if slices.Contains(reserved, p.number) {
			return Refuse(reasonNodePorts, fmt.Sprintf(
				"Predicate NodePorts failed: port %d/%s is reserved on this node, whose address the pod shares", p.number, p.protocol))
		}
	}
	for _, other := range others {
		taken := portsOf(other)
		for _, p := range wanted {
			if slices.Contains(taken, p) {
				return Refuse(reasonNodePorts, fmt.Sprintf(
					"Predicate NodePorts failed: port %d/%s is taken by pod %s/%s, which shares the node's address",
					p.number, p.protocol, other.Namespace, other.Name))
			}
		}
	}
	return nil
}

// portsOf are the ports of app containers and sidecars; other init containers
// are done before those start.
func portsOf(pod *corev1.Pod) []port {
	var ports []port
	collect := func(c *corev1.Container) {
		for _, p := range c.Ports {
			protocol := p.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			ports = append(ports, port{p.ContainerPort, protocol})
		}
	}
	for i := range pod.Spec.InitContainers {
		if crispec.Sidecar(&pod.Spec.InitContainers[i]) {
			collect(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		collect(&pod.Spec.Containers[i])
	}
	return ports
}
