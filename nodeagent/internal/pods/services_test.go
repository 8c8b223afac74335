package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// addService makes a Service.
func (m *machine) addService(namespace, name, ip string) {
	m.t.Helper()
	_, err := m.client.CoreV1().Services(namespace).Create(m.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}},
	}, metav1.CreateOptions{})
	require.NoError(m.t, err)
}

func TestContainersAreToldOfServices(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.addService("default", "kubernetes", "10.96.0.1")
	m.addService("default", "my-web", "10.96.0.2")
	m.addService("other", "hidden", "10.96.0.3")
	m.addService("default", "headless", corev1.ClusterIPNone)
	m.start()
	const tell = `env | busybox grep -E '_SERVICE_HOST|^URL' | busybox sort > /dev/termination-log; echo $1 >> /dev/termination-log`
	asking := func(name string, links *bool) *corev1.Pod {
		pod := shell(name, tell)
		pod.Spec.RestartPolicy, pod.Spec.EnableServiceLinks = corev1.RestartPolicyNever, links
		c := &pod.Spec.Containers[0]
		c.Args = []string{"sh", "arg-$(MY_WEB_SERVICE_HOST)"}
		c.Env = []corev1.EnvVar{{Name: "URL", Value: "$(MY_WEB_PORT)"}}
		return pod
	}
	m.create(asking("with", nil))
	require.Equal(t, "KUBERNETES_SERVICE_HOST=10.96.0.1\nMY_WEB_SERVICE_HOST=10.96.0.2\nURL=tcp://10.96.0.2:80\narg-10.96.0.2\n", m.awaitPhase("with", corev1.PodSucceeded).Status.ContainerStatuses[0].State.Terminated.Message)
	m.create(asking("without", ptr.To(false)))
	require.Equal(t, "KUBERNETES_SERVICE_HOST=10.96.0.1\nURL=$(MY_WEB_PORT)\narg-$(MY_WEB_SERVICE_HOST)\n", m.awaitPhase("without", corev1.PodSucceeded).Status.ContainerStatuses[0].State.Terminated.Message)
}

// untilTold runs until it is finished.
const untilTold = "while [ ! -e /tmp/end ]; do sleep 0.05; done"

// finish lets a pod that runs untilTold go on.
func (m *machine) finish(pod *corev1.Pod) {
	_, _ = m.run(pod, "touch /tmp/end") // which may be killed with the container that it ends
}

// A container keeps what it was started with; the next one hears what is new.
func TestServicesAreThoseOfTheStart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.addService("default", "kubernetes", "10.96.0.1")
	m.start()
	m.create(shell("web", untilTold))
	first := m.awaitPhase("web", corev1.PodRunning)
	m.addService("default", "late", "10.96.0.4")
	require.Eventually(t, func() bool {
		services, err := m.manager.o.Services.Of("default")
		return err == nil && len(services) == 2
	}, patience, wink)
	m.manager.runtimeChanged("") // looked at, and let be
	require.Equal(t, "10.96.0.1 none", m.sh(first, "echo $KUBERNETES_SERVICE_HOST ${LATE_SERVICE_HOST:-none}"))
	m.finish(first)
	once := m.await("web", "restarted", restarted(1))
	require.Equal(t, first.Status.ContainerStatuses[0].ContainerID, once.Status.ContainerStatuses[0].LastTerminationState.Terminated.ContainerID, "a Service is no reason to restart")
	m.awaitSaid(once, "echo $KUBERNETES_SERVICE_HOST ${LATE_SERVICE_HOST:-none}", "10.96.0.1 10.96.0.4")
}

// restarted says that the container runs for the nth time after the first.
func restarted(n int32) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount == n && s.State.Running != nil
	}
}

// An agent that cannot read the Services has what its last life remembered; with
// nothing remembered it says what it waits for.
func TestServicesOfAnEarlierLife(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.addService("default", "kubernetes", "10.96.0.1")
	m.start()
	m.create(shell("web", untilTold))
	first := m.awaitPhase("web", corev1.PodRunning)
	m.halt()
	chain := m.client.ReactionChain
	m.client.PrependReactor("list", "services", unavailable)
	m.start()
	m.awaitSaid(first, "echo here", "here") // the new agent may not have found it yet
	m.finish(first)
	once := m.await("web", "restarted", restarted(1))
	m.awaitSaid(once, "echo $KUBERNETES_SERVICE_HOST", "10.96.0.1")
	m.create(shell("new", obedient))
	waiting := m.await("new", "waiting for the Services", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == podstatus.CreateContainerConfigError
	})
	require.Equal(t, "services have not yet been read at least once, cannot construct envvars", waiting.Status.ContainerStatuses[0].State.Waiting.Message)

	m.client.Lock()
	m.client.ReactionChain = chain
	m.client.Unlock()
	m.awaitPhase("new", corev1.PodRunning)
	require.True(t, m.manager.servicesRead())
}
