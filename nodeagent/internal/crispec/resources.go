package crispec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resources "k8s.io/component-helpers/resource"
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

// Resources of a container as the kubelet computes them for a cgroup.
func Resources(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) *runtimeapi.LinuxContainerResources {
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
	if quota := cpuQuota(cpuLimit); quota != unlimited {
		r.CpuPeriod, r.CpuQuota = quotaPeriod, quota
	}
	return r
}

// unlimited is a limit that is none.
const unlimited = -1

// cpuQuota is the processor time in each period, in µs. A limit may be any number; one
// of more processors than there are is none.
func cpuQuota(limit resource.Quantity) int64 {
	if milli := limit.MilliValue(); milli > 0 && limit.CmpInt64(maxCPU) < 0 {
		return max(milli*quotaPeriod/1000, minQuota)
	}
	return unlimited
}

// PodLimits limit the cgroup around a pod's containers.
type PodLimits struct {
	CPUShares int64
	// CPUQuota and CPUPeriod in µs, Memory in bytes; -1 is no limit.
	CPUQuota, CPUPeriod int64
	Memory              int64
}

// LimitsOf a pod are the sum of what its containers have, of each resource that all
// of them limit (pkg/kubelet/cm/helpers_linux.go). Without them two pods would get the
// same share of a busy machine, whatever they asked for.
func LimitsOf(pod *corev1.Pod) PodLimits {
	requests := resources.PodRequests(pod, resources.PodResourcesOptions{})
	limits := resources.PodLimits(pod, resources.PodResourcesOptions{})
	cpu := requests[corev1.ResourceCPU]
	l := PodLimits{CPUShares: shares(cpu.MilliValue()), CPUQuota: unlimited, CPUPeriod: quotaPeriod, Memory: unlimited}
	if limit, limited := limits[corev1.ResourceCPU]; limited && allLimit(pod, corev1.ResourceCPU) {
		l.CPUQuota = cpuQuota(limit)
	}
	if limit, limited := limits[corev1.ResourceMemory]; limited && allLimit(pod, corev1.ResourceMemory) && limit.Sign() > 0 {
		l.Memory = limit.Value()
	}
	return l
}

// allLimit reports whether the pod itself or each of its containers limits the resource.
func allLimit(pod *corev1.Pod, name corev1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if _, limited := pod.Spec.Resources.Limits[name]; limited {
			return true
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if limit := containers[i].Resources.Limits[name]; limit.IsZero() {
				return false
			}
		}
	}
	return true
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
	if Sidecar(c) && len(pod.Spec.Containers) > 0 {
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

// Sidecar reports whether the init container runs beside the app containers (KEP-753).
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
