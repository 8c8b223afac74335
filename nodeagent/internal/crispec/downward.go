package crispec

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// FieldValue is what a fieldRef of the downward API says: metadata.…, labels and
// annotations as a whole or by key, spec.nodeName, spec.serviceAccountName,
// status.podIP(s) and status.hostIP(s). Another path is a *ConfigError.
func FieldValue(pod *corev1.Pod, fieldPath string, facts Facts) (string, error) {
	if whole, key, ok := subscript(fieldPath); ok {
		switch whole {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return firstOf(facts.PodIPs), nil
	case "status.podIPs":
		return strings.Join(facts.PodIPs, ","), nil
	case "status.hostIP":
		return firstOf(facts.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(facts.HostIPs, ","), nil
	}
	return "", configErrorf("field path %q is not supported", fieldPath)
}

// subscript splits metadata.labels['KEY'].
func subscript(fieldPath string) (whole, key string, ok bool) {
	inner, ok := strings.CutSuffix(fieldPath, "']")
	if !ok {
		return "", "", false
	}
	return strings.Cut(inner, "['")
}

// formatMap has one line KEY="VALUE" a key, sorted, as downward API files do.
func formatMap(m map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(lines, "\n")
}

// ResourceValue is what a resourceFieldRef says of a container of the pod (by
// default the named one): a request or limit, divided and rounded up. A limit that
// is not set is what the node has allocatable.
func ResourceValue(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	c := containerNamed(pod, container)
	if c == nil {
		return "", configErrorf("resourceFieldRef names container %q, which the pod does not have", container)
	}
	side, name, _ := strings.Cut(ref.Resource, ".")
	resourceName := corev1.ResourceName(name)
	ordinary := resourceName == corev1.ResourceCPU || resourceName == corev1.ResourceMemory ||
		resourceName == corev1.ResourceEphemeralStorage
	hugePages := strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)

	var value resource.Quantity
	switch {
	case !ordinary && !hugePages:
		return "", configErrorf("resource %q is not supported", ref.Resource)
	case side == "limits":
		value = c.Resources.Limits[resourceName]
		if value.IsZero() && ordinary {
			value = allocatable[resourceName]
		}
	case side == "requests":
		value = c.Resources.Requests[resourceName]
	default:
		return "", configErrorf("resource %q is not supported", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if resourceName == corev1.ResourceCPU {
		return divided(value.MilliValue(), divisor.MilliValue()), nil
	}
	return divided(value.Value(), divisor.Value()), nil
}

func divided(value, divisor int64) string {
	quotient := value / divisor
	if value%divisor != 0 {
		quotient++
	}
	return strconv.FormatInt(quotient, 10)
}

func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
