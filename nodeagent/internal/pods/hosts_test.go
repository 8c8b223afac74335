package pods

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

func TestNamesInAContainer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.configMap("hosts", map[string]string{"hosts": "192.0.2.9 mine"})
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.SetHostnameAsFQDN = "zero", "web", ptr.To(true)
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"db", "db.example"}}}
	pod.Spec.DNSPolicy = corev1.DNSNone
	pod.Spec.DNSConfig = &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.53", "192.0.2.54", "192.0.2.55", "192.0.2.56"}, Searches: []string{"lab.example"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("5")}},
	}
	pod.Spec.Volumes = []corev1.Volume{configMapVolume("hosts", "hosts")}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: "own", Image: critest.Busybox, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", "cat /etc/hosts > /dev/termination-log"},
		VolumeMounts: []corev1.VolumeMount{{Name: "hosts", MountPath: "/etc/hosts", SubPath: "hosts"}},
	})
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	m.create(pod)
	own := func(p *corev1.Pod) *corev1.ContainerStateTerminated {
		i := slices.IndexFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == "own" })
		if i < 0 {
			return nil
		}
		return p.Status.ContainerStatuses[i].State.Terminated
	}
	ended := m.await("app", "running, its second container over", func(p *corev1.Pod) bool {
		return p != nil && own(p) != nil && p.Status.ContainerStatuses[0].State.Running != nil
	})
	require.Equal(t, "192.0.2.9 mine", own(ended).Message, "a mount of its own stays")

	machine, err := os.ReadFile("/etc/hosts")
	require.NoError(t, err)
	said := m.sh(pod, "cat /etc/hosts")
	require.True(t, strings.HasPrefix(said, "# Kubernetes-managed hosts file (host network).\n"+strings.TrimSpace(string(machine))), said)
	require.True(t, strings.HasSuffix(said, "127.0.0.1\tzero.web.default.svc.cluster.local\tzero\n\n# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example"), said)
	require.Equal(t, "zero.web.default.svc.cluster.local", m.sh(pod, "echo $HOSTNAME"))
	require.Equal(t, "search lab.example\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 192.0.2.55\noptions ndots:5", m.sh(pod, "cat /etc/resolv.conf"))
	events := m.events.String()
	require.Contains(t, events, "Warning DNSConfigForming Nameserver limits were exceeded")
	require.Equal(t, 1, strings.Count(events, "NotSupported setHostnameAsFQDN"), events)
	m.end("app")
}

func TestNamesOfAPodWithAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.withRange()
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Hostname, pod.Spec.Subdomain = "zero", "web"
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"db"}}}
	m.create(pod)
	ip := m.awaitPhase("app", corev1.PodRunning).Status.PodIP
	require.Equal(t, "zero zero", m.sh(pod, "echo $HOSTNAME $(cat /proc/sys/kernel/hostname)"))
	require.Equal(t, "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"+
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"+
		ip+"\tzero.web.default.svc.cluster.local\tzero\n\n# Entries added by HostAliases.\n192.0.2.7\tdb", m.sh(pod, "cat /etc/hosts"))
	m.end("app")

	full := shell("full", obedient)
	full.Spec.Hostname, full.Spec.Subdomain, full.Spec.SetHostnameAsFQDN = "zero", "web", ptr.To(true)
	m.create(full)
	m.awaitPhase("full", corev1.PodRunning)
	const name = "zero.web.default.svc.cluster.local"
	require.Equal(t, name+" "+name, m.sh(full, "echo $HOSTNAME $(cat /proc/sys/kernel/hostname)"))
	require.NotContains(t, m.events.String(), "NotSupported")
	m.end("full")

	long := shell("long", obedient)
	long.Spec.Hostname, long.Spec.Subdomain, long.Spec.SetHostnameAsFQDN = strings.Repeat("x", 60), "web", ptr.To(true)
	m.create(long)
	require.Eventually(t, func() bool {
		return strings.Contains(m.events.String(), "FailedCreatePodSandBox") && strings.Contains(m.events.String(), "is too long (64 characters is the max")
	}, patience, wink, "%v", m.events)
	m.end("long")
}
