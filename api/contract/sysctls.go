package contract

import (
	"regexp"
	"strings"
)

// safeSysctls are the kernel settings that a pod has of its own, in its IPC or its
// network namespace, and that harm no other pod (Pod Security baseline, and the
// kubelet's pkg/kubelet/sysctl/safe_sysctls.go).
var safeSysctls = map[string]string{
	"kernel.shm_rmid_forced":              SysctlIPC,
	"net.ipv4.ip_local_port_range":        SysctlNetwork,
	"net.ipv4.ip_local_reserved_ports":    SysctlNetwork,
	"net.ipv4.ip_unprivileged_port_start": SysctlNetwork,
	"net.ipv4.ping_group_range":           SysctlNetwork,
	"net.ipv4.tcp_fin_timeout":            SysctlNetwork,
	"net.ipv4.tcp_keepalive_intvl":        SysctlNetwork,
	"net.ipv4.tcp_keepalive_probes":       SysctlNetwork,
	"net.ipv4.tcp_keepalive_time":         SysctlNetwork,
	"net.ipv4.tcp_notsent_lowat":          SysctlNetwork,
	"net.ipv4.tcp_rmem":                   SysctlNetwork,
	"net.ipv4.tcp_slow_start_after_idle":  SysctlNetwork,
	"net.ipv4.tcp_syncookies":             SysctlNetwork,
	"net.ipv4.tcp_wmem":                   SysctlNetwork,
}

// The namespaces of safe sysctls.
const (
	SysctlIPC     = "ipc"
	SysctlNetwork = "network"
)

// SafeSysctl returns the namespace of a kernel setting that a pod may have, and
// whether it is one. Slashes may separate its parts, as in the kernel's files.
func SafeSysctl(name string) (namespace string, safe bool) {
	namespace, safe = safeSysctls[DottedSysctl(name)]
	return namespace, safe
}

// sysctlName is what the API server takes for one (IsValidSysctlName in Kubernetes'
// pkg/apis/core/validation); it refuses a pod with another, and says so better.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

// DottedSysctl is the name with dots between its parts; where slashes separate them,
// dots belong to the parts (sysctl.d(5)).
func DottedSysctl(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}
