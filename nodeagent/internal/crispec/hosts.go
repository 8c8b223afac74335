package crispec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxHostname is the longest name that Linux takes for a host.
const maxHostname = 64

// Domain is what follows the pod's host name in its full name:
// SUBDOMAIN.NAMESPACE.svc.CLUSTERDOMAIN, or nothing where the pod names no subdomain.
func Domain(pod *corev1.Pod, clusterDomain string) string {
	if pod.Spec.Subdomain == "" || pod.Spec.HostnameOverride != nil {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
}

// FullHostname is the host name that the pod's processes are to find: Hostname, or with
// setHostnameAsFQDN the full name, which is an error if it is longer than Linux allows.
func FullHostname(pod *corev1.Pod, clusterDomain string) (string, error) {
	name, domain := Hostname(pod), Domain(pod, clusterDomain)
	if !isTrue(pod.Spec.SetHostnameAsFQDN) || domain == "" {
		return name, nil
	}
	if name += "." + domain; len(name) > maxHostname {
		return "", fmt.Errorf("setHostnameAsFQDN: the full name %s is too long (64 characters is the max, %d characters requested)", name, len(name))
	}
	return name, nil
}

// HostsOptions are what a pod's /etc/hosts needs besides the pod.
type HostsOptions struct {
	Network NetworkMode
	// IPs of the pod, the preferred one first.
	IPs []string
	// Machine is the text of the machine's own file, for network mode Host.
	Machine string
	// ClusterDomain is that of the cluster's DNS.
	ClusterDomain string
}

// Hosts is the text of a pod's /etc/hosts, in the form that the kubelet gives it
// (pkg/kubelet/kubelet_pods.go): of a pod with an address of its own its names and
// those of the local host, of one that shares the machine's address what the machine
// has. The latter's own names are added too: its $HOSTNAME is not the machine's.
func Hosts(pod *corev1.Pod, o HostsOptions) string {
	var b strings.Builder
	line := func(ip string, names ...string) {
		b.WriteString(ip + "\t" + strings.Join(names, "\t") + "\n")
	}
	if o.Network == Host {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n" + o.Machine)
		if o.Machine != "" && !strings.HasSuffix(o.Machine, "\n") {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n")
		line("127.0.0.1", "localhost")
		line("::1", "localhost ip6-localhost ip6-loopback")
		line("fe00::0", "ip6-localnet")
		line("fe00::0", "ip6-mcastprefix")
		line("fe00::1", "ip6-allnodes")
		line("fe00::2", "ip6-allrouters")
	}
	name := Hostname(pod)
	names := []string{name}
	if domain := Domain(pod, o.ClusterDomain); domain != "" {
		names = []string{name + "." + domain, name}
	}
	for _, ip := range o.IPs {
		line(ip, names...)
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, alias := range pod.Spec.HostAliases {
		line(alias.IP, alias.Hostnames...)
	}
	return b.String()
}
