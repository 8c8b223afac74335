package crispec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's bounds and the kubelet's choices (pkg/kubelet/cm/helpers_linux.go).
const (
	minShares    = 2
	maxShares    = 262144
	sharesPerCPU = 1024
	maxCPU       = 1 << 20
	quotaPeriod  = 100000 // µs
	minQuota     = 1000   // µs
)

// OOM scores by quality of service (pkg/kubelet/qos/policy.go).
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// resources of a container as the kubelet computes them for a cgroup.
func resources(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) *runtimeapi.LinuxContainerResources {
	cpuLimit := c.Resources.Limits[corev1.ResourceCPU]
	cpu, requested := c.Resources.Requests[corev1.ResourceCPU]
	if !requested {
		cpu = cpuLimit
	}
	memoryLimit := c.Resources.Limits[corev1.ResourceMemory]
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          shares(cpu.MilliValue()),
		MemoryLimitInBytes: memoryLimit.Value(),
		OomScoreAdj:        oomScore(pod, c, nodeMemory),
	}
	// A limit may be any number; one of more processors than there are is none.
	if milli := cpuLimit.MilliValue(); milli > 0 && cpuLimit.CmpInt64(maxCPU) < 0 {
		r.CpuPeriod = quotaPeriod
		r.CpuQuota = max(milli*quotaPeriod/1000, minQuota)
	}
	return r
}

func shares(milliCPU int64) int64 {
	return min(max(min(milliCPU, maxCPU)*sharesPerCPU/1000, minShares), maxShares)
}

func oomScore(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) int64 {
	switch pod.Status.QOSClass {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if nodeMemory <= 0 {
		return oomBestEffort - 1
	}
	request := memoryRequest(c)
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && len(pod.Spec.Containers) > 0 {
		// A sidecar must not die before the containers that it serves.
		least := memoryRequest(&pod.Spec.Containers[0])
		for i := range pod.Spec.Containers {
			least = min(least, memoryRequest(&pod.Spec.Containers[i]))
		}
		request = max(request, least)
	}
	// request may exceed the memory of a machine that claims more than it has.
	score := 1000 - int64(1000*float64(request)/float64(nodeMemory))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

func memoryRequest(c *corev1.Container) int64 {
	request, ok := c.Resources.Requests[corev1.ResourceMemory]
	if !ok {
		request = c.Resources.Limits[corev1.ResourceMemory]
	}
	return request.Value()
}

// MemoryLimit is the sum of the limits of the pod's containers, or 0 if one of them
// has none: what a memory-backed volume of it may hold.
func MemoryLimit(pod *corev1.Pod) int64 {
	total := resource.Quantity{}
	for i := range pod.Spec.Containers {
		limit, ok := pod.Spec.Containers[i].Resources.Limits[corev1.ResourceMemory]
		if !ok || limit.IsZero() {
			return 0
		}
		total.Add(limit)
	}
	return total.Value()
}
