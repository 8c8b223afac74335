package crispec

import (
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/api/contract"
)

// Sandbox is the sandbox of pod. It refuses what reaches for the machine's
// namespaces, whatever was judged before.
func Sandbox(pod *corev1.Pod, o SandboxOptions) (*runtimeapi.PodSandboxConfig, error) {
	if err := refuseHostNamespaces(pod); err != nil {
		return nil, fmt.Errorf("configure the sandbox of pod %q: %w", pod.Namespace+"/"+pod.Name, err)
	}
	sysctls, err := Sysctls(pod, o.Network)
	if err != nil {
		return nil, fmt.Errorf("configure the sandbox of pod %q: %w", pod.Namespace+"/"+pod.Name, err)
	}
	annotations := podAnnotations(pod)
	annotations[AnnotationEpoch] = strconv.FormatInt(o.Epoch, 10)

	hostname := o.Hostname
	switch {
	case o.Network == Host:
		// A sandbox in the machine's network namespace is in its UTS namespace too,
		// where a host name may not be set.
		hostname = ""
	case hostname == "":
		hostname = Hostname(pod)
	}
	security := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, o.Network),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		security.RunAsUser = int64Value(sc.RunAsUser)
		if sc.RunAsUser != nil {
			// The runtime refuses a group without a user; the pause image's is root.
			security.RunAsGroup = int64Value(sc.RunAsGroup)
		}
		security.SelinuxOptions = selinux(sc.SELinuxOptions)
		if security.SupplementalGroups, security.SupplementalGroupsPolicy, err = supplementalGroups(sc); err != nil {
			return nil, fmt.Errorf("configure the sandbox of pod %q: %w", pod.Namespace+"/"+pod.Name, err)
		}
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: o.Attempt,
		},
		Hostname:     hostname,
		LogDirectory: o.LogDirectory,
		DnsConfig:    o.DNS,
		Labels:       podLabels(pod),
		Annotations:  annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    PodCgroup(o.CgroupParent, pod.UID),
			SecurityContext: security,
			Sysctls:         sysctls,
		},
	}, nil
}

// Sysctls are the kernel settings that the pod asks for. One that is not the pod's own
// is an error, worded as the kubelet's.
func Sysctls(pod *corev1.Pod, network NetworkMode) (map[string]string, error) {
	if pod.Spec.SecurityContext == nil {
		return nil, nil
	}
	all := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		namespace, safe := contract.SafeSysctl(s.Name)
		switch {
		case !safe:
			return nil, fmt.Errorf("forbidden sysctl: %q not allowlisted", s.Name)
		case namespace == contract.SysctlNetwork && network == Host:
			return nil, fmt.Errorf("forbidden sysctl: %q is the machine's, whose network pods share on this node; bind it with --pod-cidr", s.Name)
		}
		all[contract.DottedSysctl(s.Name)] = s.Value
	}
	return all, nil
}

func refuseHostNamespaces(pod *corev1.Pod) error {
	switch {
	case pod.Spec.HostNetwork:
		return errors.New("hostNetwork is not supported on AI nodes")
	case pod.Spec.HostPID:
		return errors.New("hostPID is not supported on AI nodes")
	case pod.Spec.HostIPC:
		return errors.New("hostIPC is not supported on AI nodes")
	case pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers:
		// Running it without is no small thing: the pod asked for a protection.
		return errors.New("hostUsers: false (a user namespace) is not supported on AI nodes yet")
	}
	return nil
}

func namespaces(pod *corev1.Pod, network NetworkMode) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE,
		Pid:     runtimeapi.NamespaceMode_CONTAINER,
		Ipc:     runtimeapi.NamespaceMode_POD,
	}
	if network == CNI {
		o.Network = runtimeapi.NamespaceMode_POD
	}
	if share := pod.Spec.ShareProcessNamespace; share != nil && *share {
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// supplementalGroups are fsGroup and supplementalGroups, in the kubelet's order.
func supplementalGroups(sc *corev1.PodSecurityContext) ([]int64, runtimeapi.SupplementalGroupsPolicy, error) {
	var groups []int64
	if sc.FSGroup != nil {
		groups = append(groups, *sc.FSGroup)
	}
	groups = append(groups, sc.SupplementalGroups...)
	if sc.SupplementalGroupsPolicy == nil {
		return groups, runtimeapi.SupplementalGroupsPolicy_Merge, nil
	}
	policy, ok := runtimeapi.SupplementalGroupsPolicy_value[string(*sc.SupplementalGroupsPolicy)]
	if !ok {
		return nil, 0, fmt.Errorf("supplementalGroupsPolicy %q is not known", *sc.SupplementalGroupsPolicy)
	}
	return groups, runtimeapi.SupplementalGroupsPolicy(policy), nil
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}
