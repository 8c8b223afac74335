package pods

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// harmless are the capabilities that a container has anyway unless it drops them.
var harmless = []corev1.Capability{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// hostAccess defends the machine: it returns the first field by which the pod
// asks for more of the machine than a pod gets here, and why that is refused.
// The pod's API object may say anything; nothing turns this off.
func hostAccess(pod *corev1.Pod) (field, why string) {
	spec := &pod.Spec
	const hostNamespace = "pods on AI nodes do not share the machine's namespaces"
	switch {
	case spec.HostNetwork:
		return "spec.hostNetwork", hostNamespace
	case spec.HostPID:
		return "spec.hostPID", hostNamespace
	case spec.HostIPC:
		return "spec.hostIPC", hostNamespace
	case len(spec.ResourceClaims) > 0:
		return "spec.resourceClaims", "dynamic resource allocation is not supported; ask for GPUs in limits"
	case spec.RuntimeClassName != nil && *spec.RuntimeClassName != "":
		return "spec.runtimeClassName", fmt.Sprintf("runtime class %q is not there on AI nodes", *spec.RuntimeClassName)
	}
	if sc := spec.SecurityContext; sc != nil {
		if sc.WindowsOptions != nil && sc.WindowsOptions.HostProcess != nil && *sc.WindowsOptions.HostProcess {
			return "spec.securityContext.windowsOptions.hostProcess", "AI nodes run Linux"
		}
		if len(sc.Sysctls) > 0 {
			return "spec.securityContext.sysctls", "the pod shares the machine's kernel settings"
		}
	}
	for i := range spec.Volumes {
		if field, why := volumeAccess(&spec.Volumes[i]); field != "" {
			return fmt.Sprintf("spec.volumes[%d].%s", i, field), why
		}
	}
	for i := range spec.InitContainers {
		if field, why := containerAccess(&spec.InitContainers[i]); field != "" {
			return fmt.Sprintf("spec.initContainers[%d].%s", i, field), why
		}
	}
	for i := range spec.Containers {
		if field, why := containerAccess(&spec.Containers[i]); field != "" {
			return fmt.Sprintf("spec.containers[%d].%s", i, field), why
		}
	}
	return "", ""
}

func volumeAccess(v *corev1.Volume) (field, why string) {
	switch {
	case v.HostPath != nil:
		return "hostPath", fmt.Sprintf("path %q of the machine is not given to pods", v.HostPath.Path)
	case v.EmptyDir != nil, v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil,
		v.Projected != nil, v.PersistentVolumeClaim != nil, v.VolumeSource == corev1.VolumeSource{}:
		return "", ""
	default:
		return "name", fmt.Sprintf("volume %q is of a kind that AI nodes do not mount", v.Name)
	}
}

func containerAccess(c *corev1.Container) (field, why string) {
	for i, p := range c.Ports {
		if p.HostPort != 0 {
			return fmt.Sprintf("ports[%d].hostPort", i), fmt.Sprintf("port %d of the machine is not given to pods", p.HostPort)
		}
	}
	if len(c.VolumeDevices) > 0 {
		return "volumeDevices[0]", "block devices are not given to pods"
	}
	sc := c.SecurityContext
	if sc == nil {
		return "", ""
	}
	if sc.Privileged != nil && *sc.Privileged {
		return "securityContext.privileged", "privileged containers own the machine"
	}
	if sc.ProcMount != nil && *sc.ProcMount != corev1.DefaultProcMount {
		return "securityContext.procMount", "an unmasked /proc reaches the machine"
	}
	if sc.Capabilities != nil {
		for i, capability := range sc.Capabilities.Add {
			if !slices.Contains(harmless, capability) {
				return fmt.Sprintf("securityContext.capabilities.add[%d]", i),
					fmt.Sprintf("capability %q reaches beyond the container", capability)
			}
		}
	}
	return "", ""
}
