package eviction

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// candidate is a pod that may be evicted, and what it uses; nil if that is not known.
type candidate struct {
	pod  *corev1.Pod
	used *stats.PodStats
}

// rank sorts the candidates: who is to go comes first. By memory and disk that is
// who uses more than he asked for, then who has the lower priority, then who is
// further above his request; by process ids who has the lower priority, then who has
// more. A pod of which nothing is known goes before all others.
func rank(signal Signal, oneDisk bool, candidates []candidate) {
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		x, y := a.above(signal, oneDisk), b.above(signal, oneDisk)
		unknown := first(a.used == nil, b.used == nil)
		priority := cmp.Compare(schedulingv1.PodPriority(a.pod), schedulingv1.PodPriority(b.pod))
		more := cmp.Compare(y, x)
		if signal == PIDAvailable {
			return cmp.Or(priority, unknown, more)
		}
		return cmp.Or(unknown, first(x > 0, y > 0), priority, more)
	})
}

// first puts true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// above is how much more the pod uses than it has asked for, in the signal's unit.
func (c candidate) above(signal Signal, oneDisk bool) int64 {
	if c.used == nil {
		return 0
	}
	switch signal {
	case MemoryAvailable:
		return bytesOf(c.used.Memory) - c.request(corev1.ResourceMemory)
	case PIDAvailable:
		if c.used.ProcessStats == nil {
			return 0
		}
		return number(c.used.ProcessStats.ProcessCount)
	case NodeFsInodesFree, ImageFsInodesFree:
		return c.disk(signal, oneDisk, func(fs *stats.FsStats) int64 { return number(fs.InodesUsed) })
	default:
		return c.disk(signal, oneDisk, func(fs *stats.FsStats) int64 { return number(fs.UsedBytes) }) -
			c.request(corev1.ResourceEphemeralStorage)
	}
}

// disk sums what the pod has on the disk that the signal is about: writable layers
// are where the images are, logs and volumes on the node's own.
func (c candidate) disk(signal Signal, oneDisk bool, of func(*stats.FsStats) int64) int64 {
	onImages := ofImages(signal)
	var sum int64
	for i := range c.used.Containers {
		if layer := c.used.Containers[i].Rootfs; layer != nil && (oneDisk || onImages) {
			sum += of(layer)
		}
		if logs := c.used.Containers[i].Logs; logs != nil && (oneDisk || !onImages) {
			sum += of(logs)
		}
	}
	for i := range c.used.VolumeStats {
		if oneDisk || !onImages {
			sum += of(&c.used.VolumeStats[i].FsStats)
		}
	}
	return sum
}

func (c candidate) request(name corev1.ResourceName) int64 {
	request := resourcehelper.PodRequests(c.pod, resourcehelper.PodResourcesOptions{})[name]
	return request.Value()
}

func bytesOf(m *stats.MemoryStats) int64 {
	if m == nil {
		return 0
	}
	return number(m.WorkingSetBytes)
}

func number(n *uint64) int64 {
	if n == nil {
		return 0
	}
	return int64(*n) // no machine has 2^63 bytes
}
