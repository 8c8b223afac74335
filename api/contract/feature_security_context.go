package contract

import (
	"fmt"
	"slices"
	"strings"
)

// harmless are the capabilities that a container has anyway unless it drops them:
// containerd's default set. All others raise privilege; SYS_PTRACE too, by which a
// process could take files out of the hands of what it meets in the machine's network.
var harmless = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_RAW",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// seLinuxTypes are those that confine a container (Pod Security, baseline).
var seLinuxTypes = []string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

// securityContext is row security-context of SUPPORT.md: removed, and told exactly where
// that takes a protection away; kept where the namespace enforces restricted; in the
// profile agent only what raises privilege goes.
//
//	security-context: spec.containers[0].securityContext was removed: takes away runAsNonRoot, dropped capabilities
func securityContext(r *review) {
	if r.Namespace.Restricted {
		return
	}
	judge := r.stripSecurity
	if r.Policy.Profile == ProfileAgent {
		judge = r.lowerSecurity
	}
	if s := r.pod.Spec.SecurityContext; s != nil {
		judge(s, "spec.securityContext", "/spec/securityContext")
	}
	r.pod.containers(func(c *Container) {
		if s := c.SecurityContext; s != nil {
			judge(s, c.field+".securityContext", c.path+"/securityContext")
		}
	})
}

func (r *review) stripSecurity(s *Security, field, path string) {
	if !s.set {
		return
	}
	f := Finding{Field: field, Action: Strip, Old: s.Raw, Detail: "pods on AI nodes run without one"}
	if r.override == "" {
		f.Lost = s.protections()
	}
	r.find(f, remove(path))
}

// protections are those of the context that its removal takes away.
func (s *Security) protections() []string {
	var all []string
	add := func(is bool, what string) {
		if is {
			all = append(all, what)
		}
	}
	add(s.RunAsNonRoot, "runAsNonRoot")
	add(s.RunAsUser != nil && *s.RunAsUser != 0, "runAsUser")
	add(s.RunAsGroup != nil && *s.RunAsGroup != 0, "runAsGroup")
	add(len(s.Capabilities.Drop) > 0, "dropped capabilities")
	add(s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation, "allowPrivilegeEscalation: false")
	add(s.ReadOnlyRootFilesystem, "readOnlyRootFilesystem")
	add(s.SeccompProfile.confines(), "seccompProfile")
	add(s.AppArmorProfile.confines(), "appArmorProfile")
	add(s.SELinuxOptions != nil, "seLinuxOptions")
	return all
}

func (p *profileType) confines() bool { return p != nil && p.Type != "" && p.Type != "Unconfined" }

func (p *profileType) unconfined() bool { return p != nil && p.Type == "Unconfined" }

// lowerSecurity removes what raises privilege and keeps the rest, which our own
// agent honours.
func (r *review) lowerSecurity(s *Security, field, path string) {
	raises := func(is bool, name, detail string, e ...edit) {
		if is {
			if len(e) == 0 {
				e = []edit{remove(path + "/" + name)}
			}
			r.find(Finding{Field: field + "." + name, Action: Strip, Detail: detail}, e...)
		}
	}
	raises(s.Privileged, "privileged", "a privileged container would own the machine")
	for i, sysctl := range s.Sysctls {
		_, safe := SafeSysctl(sysctl.Name)
		raises(!safe && sysctlName.MatchString(sysctl.Name), fmt.Sprintf("sysctls[%d]", i), fmt.Sprintf("the kernel setting %s is the machine's", cut(sysctl.Name, 40)),
			removeAt(path+"/sysctls", i, len(s.Sysctls)))
	}
	raises(s.ProcMount != "" && s.ProcMount != "Default", "procMount", "an unmasked /proc reaches the machine")
	// Not seccomp: unconfined is what a container without a profile is here.
	raises(s.AppArmorProfile.unconfined(), "appArmorProfile", "an unconfined container reaches the machine")
	if o := s.SELinuxOptions; o != nil {
		raises(!slices.Contains(seLinuxTypes, o.Type) || o.User != "" || o.Role != "", "seLinuxOptions",
			"another SELinux user, role or type than a container's reaches the machine")
	}
	raises(s.WindowsOptions != nil, "windowsOptions", "AI nodes run Linux")
	for i, capability := range s.Capabilities.Add {
		raises(!slices.Contains(harmless, strings.TrimPrefix(capability, "CAP_")), fmt.Sprintf("capabilities.add[%d]", i),
			fmt.Sprintf("capability %s reaches beyond the container", cut(capability, 40)),
			removeAt(path+"/capabilities/add", i, len(s.Capabilities.Add)))
	}
}
