package pods

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// probing is a probe by a test(1) in the container.
func probing(test ...string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: append([]string{"test"}, test...)}},
		PeriodSeconds: 1, TimeoutSeconds: 30, SuccessThreshold: 1, FailureThreshold: 1,
	}
}

// exec runs a command in the pod's newest container.
func (m *machine) exec(name string, command ...string) {
	m.t.Helper()
	status := m.get(name).Status.ContainerStatuses[0]
	_, _, err := m.c.Runtime.ExecSync(m.t.Context(), strings.TrimPrefix(status.ContainerID, "containerd://"), command, time.Minute)
	require.NoError(m.t, err)
}

func (m *machine) awaitReady(name string, ready bool) *corev1.Pod {
	m.t.Helper()
	return m.await(name, "running and ready or not", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].Ready == ready
	})
}

func TestLivenessRestarts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	// A process that ends well when it is told to: by this policy it would not be started again.
	pod := shell("web", "trap 'exit 0' TERM; touch /up; while :; do sleep 0.05; done")
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	pod.Spec.TerminationGracePeriodSeconds = ptr.To(int64(patience / time.Second)) // of which it takes next to nothing
	pod.Spec.Containers[0].ReadinessProbe = probing("-e", "/up")
	pod.Spec.Containers[0].LivenessProbe = probing("!", "-e", "/stuck")
	m.create(pod)
	m.awaitReady("web", true)
	m.exec("web", "touch", "/stuck")
	again := m.await("web", "restarted", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].Ready
	})
	require.Equal(t, int32(0), again.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
	require.Contains(t, m.events.list(), "Warning Unhealthy Liveness probe failed: ")
	require.Contains(t, m.events.list(), "Normal Killing Container main failed liveness probe, will be restarted")
}

func TestReadinessOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("web", obedient)
	pod.Spec.Containers[0].ReadinessProbe = probing("-e", "/ready", "-a", "!", "-e", "/busy")
	m.create(pod)
	m.awaitReady("web", false)
	m.exec("web", "touch", "/ready")
	before := m.awaitReady("web", true)
	ready := func(p *corev1.Pod) corev1.PodCondition {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady {
				return c
			}
		}
		return corev1.PodCondition{}
	}
	require.Equal(t, corev1.ConditionTrue, ready(before).Status)

	m.halt()
	written := m.patches()
	m.start()
	m.exec("web", "touch", "/busy") // seen by the new agent's probe alone
	after := m.awaitReady("web", false)
	require.Equal(t, before.Status.ContainerStatuses[0].ContainerID, after.Status.ContainerStatuses[0].ContainerID)
	require.Equal(t, written+1, m.patches(), "unready once, and not before it was probed")
}

// An agent that is started finds its containers before the API has told how they were.
func TestReadinessOutlivesTheAgentWhoseAPIIsLate(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.line = newLine(m)
	m.start()
	pod := shell("web", "touch /ready; "+obedient)
	pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "while [ -e /slow ]; do sleep 0.05; done; test -e /ready"}}},
		PeriodSeconds: 1, TimeoutSeconds: 3600, SuccessThreshold: 1, FailureThreshold: 1,
	}
	m.create(pod)
	m.awaitReady("web", true)
	m.halt()
	written := m.patches()

	m.exec("web", "touch", "/slow") // no probe of the next agent says anything
	m.line.cut()
	m.startAway()
	require.Eventually(t, func() bool {
		w := m.worker("web")
		return w != nil && len(w.probes.Results()) == 1
	}, patience, wink, "it is probed though the API is away")
	m.line.mend()
	require.Eventually(t, func() bool {
		w := m.worker("web")
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.online
	}, patience, wink)
	require.True(t, m.manager.Pods()[0].Status.ContainerStatuses[0].Ready)
	m.exec("web", "busybox", "rm", "/ready", "/slow")
	m.awaitReady("web", false)
	require.Equal(t, written+1, m.patches(), "unready once, and not before it was probed")
}

func TestStartupProbeOfASidecarHoldsBackTheApp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("web", "cat /shared/order > /dev/termination-log")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	side := *pod.Spec.Containers[0].DeepCopy()
	side.Name, side.RestartPolicy = "side", ptr.To(corev1.ContainerRestartPolicyAlways)
	side.Command = []string{"sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; echo up > /shared/order; touch /up; " + obedient}
	side.StartupProbe = probing("-e", "/up")
	side.StartupProbe.FailureThreshold = int32(2 * patience / time.Second)
	pod.Spec.InitContainers = []corev1.Container{side}
	m.create(pod)
	m.await("web", "initializing", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].State.Running != nil && !*s[0].Started && p.Status.Phase == corev1.PodPending
	})
	id, err := m.manager.ContainerID("default", "web", "", "side")
	require.NoError(t, err)
	_, _, err = m.c.Runtime.ExecSync(t.Context(), id, []string{"touch", "/go"}, patience)
	require.NoError(t, err)
	done := m.awaitPhase("web", corev1.PodSucceeded)
	require.Equal(t, "up\n", done.Status.ContainerStatuses[0].State.Terminated.Message)
}
