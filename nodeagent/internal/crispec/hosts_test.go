package crispec

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-0"},
		Spec: corev1.PodSpec{HostAliases: []corev1.HostAlias{
			{IP: "192.0.2.7", Hostnames: []string{"db", "db.example"}}, {IP: "2001:db8::7", Hostnames: []string{"six"}},
		}},
	}
	const aliases = "\n# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example\n2001:db8::7\tsix\n"
	const local = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
	own := HostsOptions{Network: CNI, IPs: []string{"10.0.0.5", "fd00::5"}, ClusterDomain: "cluster.local"}
	require.Equal(t, local+"10.0.0.5\tweb-0\nfd00::5\tweb-0\n"+aliases, Hosts(pod, own))

	pod.Spec.HostAliases = nil
	pod.Spec.Hostname, pod.Spec.Subdomain = "zero", "web"
	require.Equal(t, local+"10.0.0.5\tzero.web.ns.svc.cluster.local\tzero\nfd00::5\tzero.web.ns.svc.cluster.local\tzero\n", Hosts(pod, own))

	shared := HostsOptions{Network: Host, IPs: []string{"192.0.2.1"}, Machine: "127.0.0.1 localhost\n192.0.2.1 gpu-box", ClusterDomain: "cluster.local"}
	require.Equal(t, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n192.0.2.1 gpu-box\n"+
		"192.0.2.1\tzero.web.ns.svc.cluster.local\tzero\n", Hosts(pod, shared))
}

func TestFullHostname(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-0"}}
	is := func(want string) {
		t.Helper()
		got, err := FullHostname(pod, "cluster.local")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	is("web-0")
	pod.Spec.SetHostnameAsFQDN = ptr.To(true)
	is("web-0") // no subdomain, no full name
	pod.Spec.Subdomain = "web"
	is("web-0.web.ns.svc.cluster.local")
	pod.Spec.SetHostnameAsFQDN = ptr.To(false)
	is("web-0")
	pod.Spec.SetHostnameAsFQDN = ptr.To(true)
	pod.Name = strings.Repeat("x", 50)
	_, err := FullHostname(pod, "cluster.local")
	require.ErrorContains(t, err, "is too long (64 characters is the max, 75 characters requested)")
	pod.Spec.HostnameOverride = ptr.To("other")
	is("other")
}
