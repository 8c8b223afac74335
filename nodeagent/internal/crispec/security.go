package crispec

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What of /proc and /sys containers do not see or may not write: the kubelet's
// lists (pkg/securitycontext/util.go).
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// containerSecurity joins the security contexts of pod and container; the
// container's fields win.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, o ContainerOptions) (*runtimeapi.LinuxContainerSecurityContext, error) {
	if err := refuseHostNamespaces(pod); err != nil {
		return nil, err
	}
	psc, csc := pod.Spec.SecurityContext, c.SecurityContext
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	if csc == nil {
		csc = &corev1.SecurityContext{}
	}
	if isTrue(csc.Privileged) {
		return nil, errors.New("privileged containers are not supported on AI nodes")
	}
	if csc.ProcMount != nil && *csc.ProcMount != corev1.DefaultProcMount {
		return nil, fmt.Errorf("procMount %q is not supported on AI nodes", *csc.ProcMount)
	}
	if err := NonRoot(pod, c, o.ImageUID, o.ImageUsername); err != nil {
		return nil, err
	}
	s := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(pod, o.Network),
		RunAsUser:        int64Value(first(csc.RunAsUser, psc.RunAsUser)),
		RunAsGroup:       int64Value(first(csc.RunAsGroup, psc.RunAsGroup)),
		SelinuxOptions:   selinux(first(csc.SELinuxOptions, psc.SELinuxOptions)),
		ReadonlyRootfs:   isTrue(csc.ReadOnlyRootFilesystem),
		NoNewPrivs:       csc.AllowPrivilegeEscalation != nil && !*csc.AllowPrivilegeEscalation,
		MaskedPaths:      maskedPaths,
		ReadonlyPaths:    readonlyPaths,
	}
	if o.Target != "" {
		s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, o.Target
	}
	if s.RunAsUser == nil {
		if o.ImageUID != nil {
			s.RunAsUser = int64Value(o.ImageUID)
		} else {
			s.RunAsUsername = o.ImageUsername
		}
		if s.RunAsGroup != nil && s.RunAsUser == nil && s.RunAsUsername == "" {
			// The runtime refuses a group without a user; an image that names none is root's.
			s.RunAsUser = &runtimeapi.Int64Value{}
		}
	}
	if caps := csc.Capabilities; caps != nil {
		s.Capabilities = &runtimeapi.Capability{
			AddCapabilities: capabilities(caps.Add), DropCapabilities: capabilities(caps.Drop),
		}
	}
	var err error
	if s.SupplementalGroups, s.SupplementalGroupsPolicy, err = supplementalGroups(psc); err != nil {
		return nil, err
	}
	if s.Seccomp, err = seccomp(first(csc.SeccompProfile, psc.SeccompProfile)); err != nil {
		return nil, err
	}
	if s.Apparmor, err = apparmor(first(csc.AppArmorProfile, psc.AppArmorProfile)); err != nil {
		return nil, err
	}
	return s, nil
}

// NonRoot is an error if the container must not run as root and would, or may. uid
// and username are the user of its image; neither means root. The wording is the
// kubelet's.
func NonRoot(pod *corev1.Pod, c *corev1.Container, uid *int64, username string) error {
	psc, csc := pod.Spec.SecurityContext, c.SecurityContext
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	if csc == nil {
		csc = &corev1.SecurityContext{}
	}
	if !isTrue(first(csc.RunAsNonRoot, psc.RunAsNonRoot)) {
		return nil
	}
	user := first(csc.RunAsUser, psc.RunAsUser)
	switch {
	case user != nil && *user == 0:
		return errors.New("container's runAsUser breaks non-root policy")
	case user != nil:
		return nil
	case uid != nil && *uid == 0, uid == nil && username == "":
		return errors.New("container has runAsNonRoot and image will run as root; set runAsUser, or use an image that names a numeric user")
	case uid == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root; set runAsUser", username)
	}
	return nil
}

// seccomp without a profile is unconfined, as the kubelet has it: the runtime's
// default denies what NUMA-aware GPU programs do.
func seccomp(profile *corev1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch profile.Type {
	case corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	default:
		return nil, fmt.Errorf("seccomp profile type %q is not supported on AI nodes; use RuntimeDefault", profile.Type)
	}
}

// apparmor without a profile leaves it to the runtime.
func apparmor(profile *corev1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return nil, nil
	}
	switch profile.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || *profile.LocalhostProfile == "" {
			return nil, errors.New("the AppArmor profile of type Localhost has no name")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *profile.LocalhostProfile,
		}, nil
	default:
		return nil, fmt.Errorf("AppArmor profile type %q is not known", profile.Type)
	}
}

func capabilities(list []corev1.Capability) []string {
	var names []string
	for _, c := range list {
		names = append(names, string(c))
	}
	return names
}

// first is a, or b where a is not set.
func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func isTrue(b *bool) bool { return b != nil && *b }
