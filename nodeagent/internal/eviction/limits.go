package eviction

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// limited reports whether the pod has a limit on disk that only measuring can keep.
func limited(pod *corev1.Pod) bool {
	if _, has := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]; has {
		return true
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; onDisk(v) && sized(v) {
			return true
		}
	}
	return false
}

func onDisk(v *corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault
}

// sized reports whether an emptyDir has a limit.
func sized(v *corev1.Volume) bool {
	return v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() > 0
}

// exceeded is the message of a pod that uses more disk than its limits allow, empty
// for all others: an emptyDir's sizeLimit first, then the pod's ephemeral-storage,
// then a container's. oneDisk says that writable layers are on the node's own disk;
// on another they do not count for a container.
func exceeded(c candidate, oneDisk bool) string {
	if c.used == nil {
		return ""
	}
	volumes := map[string]int64{}
	for i := range c.used.VolumeStats {
		volumes[c.used.VolumeStats[i].Name] = number(c.used.VolumeStats[i].UsedBytes)
	}
	for i := range c.pod.Spec.Volumes {
		v := &c.pod.Spec.Volumes[i]
		if onDisk(v) && sized(v) && v.EmptyDir.SizeLimit.CmpInt64(volumes[v.Name]) < 0 {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	limit, has := resourcehelper.PodLimits(c.pod, resourcehelper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]
	if has && c.used.EphemeralStorage != nil && limit.CmpInt64(number(c.used.EphemeralStorage.UsedBytes)) < 0 {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", &limit)
	}
	for i := range c.used.Containers {
		used := &c.used.Containers[i]
		container := find(c.pod, used.Name)
		if container == nil || !lasting(c.pod, container) {
			continue
		}
		var sum int64
		if used.Logs != nil {
			sum += number(used.Logs.UsedBytes)
		}
		if used.Rootfs != nil && oneDisk {
			sum += number(used.Rootfs.UsedBytes)
		}
		limit := container.Resources.Limits[corev1.ResourceEphemeralStorage]
		if !limit.IsZero() && limit.CmpInt64(sum) < 0 {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", container.Name, limit.String())
		}
	}
	return ""
}

// lasting reports whether the container runs beside the others: what init containers
// write is the pod's matter alone.
func lasting(pod *corev1.Pod, c *corev1.Container) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == c.Name {
			return true
		}
	}
	return crispec.Sidecar(c)
}
