package crispec

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func service(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

// port is like the API server's default: TCP.
func port(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, Port: number}
}

func TestServiceEnv(t *testing.T) {
	t.Parallel()
	apiServer := service("default", "kubernetes", "10.96.0.1", port("https", 443))
	told := map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443",
		"KUBERNETES_PORT": "tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
		"KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
	}
	for name, test := range map[string]struct {
		links    *bool
		services []*corev1.Service
		want     map[string]string
	}{
		"no Services":                           {want: map[string]string{}},
		"the API server's always":               {links: ptr.To(false), services: []*corev1.Service{apiServer}, want: told},
		"not its own namespace's without links": {links: ptr.To(false), services: []*corev1.Service{apiServer, service("ns", "web", "10.96.0.9", port("", 80))}, want: told},
		"without an address there is nothing to tell": {
			services: []*corev1.Service{apiServer, service("ns", "headless", "None", port("", 80)), service("ns", "elsewhere", "", port("", 80)), service("ns", "portless", "10.96.0.8")}, want: told,
		},
		"another namespace's are not told": {
			services: []*corev1.Service{apiServer, service("default", "web", "10.96.0.9", port("", 80)), service("other", "web", "10.96.0.9", port("", 80))}, want: told,
		},
		"two ports, of which the first counts": {
			links: ptr.To(true), services: []*corev1.Service{service("ns", "my-dns", "fd00::a", corev1.ServicePort{Name: "dns-udp", Protocol: corev1.ProtocolUDP, Port: 53}, corev1.ServicePort{Name: "dns", Port: 54})},
			want: map[string]string{
				"MY_DNS_SERVICE_HOST": "fd00::a", "MY_DNS_SERVICE_PORT": "53", "MY_DNS_SERVICE_PORT_DNS_UDP": "53", "MY_DNS_SERVICE_PORT_DNS": "54",
				"MY_DNS_PORT": "udp://[fd00::a]:53", "MY_DNS_PORT_53_UDP": "udp://[fd00::a]:53", "MY_DNS_PORT_53_UDP_PROTO": "udp",
				"MY_DNS_PORT_53_UDP_PORT": "53", "MY_DNS_PORT_53_UDP_ADDR": "fd00::a",
				"MY_DNS_PORT_54_TCP": "tcp://[fd00::a]:54", "MY_DNS_PORT_54_TCP_PROTO": "tcp", "MY_DNS_PORT_54_TCP_PORT": "54", "MY_DNS_PORT_54_TCP_ADDR": "fd00::a",
			},
		},
	} {
		pod := examplePod()
		pod.Spec.EnableServiceLinks = test.links
		require.Equal(t, test.want, ServiceEnv(pod, test.services), name)
	}

	own := service("ns", "kubernetes", "10.96.0.7", port("https", 443))
	for _, services := range [][]*corev1.Service{{own, apiServer}, {apiServer, own}} {
		require.Equal(t, "10.96.0.7", ServiceEnv(examplePod(), services)["KUBERNETES_SERVICE_HOST"], "a namespace's own of that name wins")
	}
}

func TestServicesComeBeforeWhatThePodSays(t *testing.T) {
	t.Parallel()
	pod := examplePod()
	c := &pod.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{allOf("configmap", "settings", "WEB_PORT_", false)}
	c.Env = []corev1.EnvVar{
		literal("URL", "http://$(WEB_SERVICE_HOST):$(WEB_PORT_A)"), literal("WEB_SERVICE_HOST", "mine-instead-of-$(WEB_SERVICE_HOST)"), literal("AFTER", "$(WEB_SERVICE_HOST)"),
	}
	f := facts
	f.ServiceEnv = map[string]string{"WEB_SERVICE_HOST": "10.96.0.9", "WEB_SERVICE_PORT": "80", "WEB_PORT_A": "lost"}
	env, err := Env(t.Context(), pod, c, store(), f)
	require.NoError(t, err)
	require.Equal(t, []string{
		"HOSTNAME=web-0", "WEB_SERVICE_PORT=80", "WEB_PORT_A=cm-a", "WEB_PORT_B=cm-b", "URL=http://10.96.0.9:cm-a",
		"WEB_SERVICE_HOST=mine-instead-of-10.96.0.9", "AFTER=mine-instead-of-10.96.0.9",
	}, pairs(env))

	c.Env, c.Command, c.Args = nil, []string{"run", "$(WEB_SERVICE_HOST)"}, []string{"$(WEB_SERVICE_PORT)", "$(NO_SERVICE_PORT)"}
	env, err = Env(t.Context(), pod, c, store(), f)
	require.NoError(t, err)
	config, err := Container(pod, c, ContainerOptions{ImageRef: "example.com/app:1", Env: env})
	require.NoError(t, err)
	require.Equal(t, []string{"run", "10.96.0.9"}, config.Command)
	require.Equal(t, []string{"80", "$(NO_SERVICE_PORT)"}, config.Args)
}
