package pods

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

func TestPodRunsAndIsDeleted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	pod := m.awaitPhase("web", corev1.PodRunning)
	require.Equal(t, "127.0.0.1", pod.Status.PodIP)
	require.True(t, pod.Status.ContainerStatuses[0].Ready)
	require.LessOrEqual(t, m.patches(), 2, "writes for a start")
	id, err := m.manager.ContainerID("default", "web", "", "main")
	require.NoError(t, err)
	require.Equal(t, "containerd://"+id, pod.Status.ContainerStatuses[0].ContainerID)

	before := m.patches()
	m.delete("web", 5)
	m.awaitGone("web")
	require.LessOrEqual(t, m.patches()-before, 2, "writes for a stop")
	require.Eventually(t, func() bool { return len(m.manager.Pods()) == 0 }, patience, time.Millisecond)
	sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	require.Subset(t, m.events.list(), []string{
		"Normal Created Container created", "Normal Started Container started", "Normal Killing Stopping container main",
	})
}

func TestKilledAgentLosesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0", "GPU-1")
	m.start()
	pod := asking(shell("train", obedient), "main", 1)
	m.create(pod)
	before := m.awaitPhase("train", corev1.PodRunning)
	m.halt()
	patches := m.patches()

	m.start() // a new agent, as after kill -9
	require.Eventually(t, func() bool { return m.manager.GPUsInUse() == 1 }, patience, time.Millisecond, "the card is still the pod's")
	m.create(shell("probe", obedient))
	m.awaitPhase("probe", corev1.PodRunning)
	after := m.get("train")
	require.Equal(t, before.Status, after.Status)
	require.LessOrEqual(t, m.patches()-patches, 2, "writes for the probe alone")
}

func TestContainersRestartWhileTheAPIIsAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 3"))
	pod := m.awaitPhase("web", corev1.PodRunning)
	m.halt()

	m.client.PrependReactor("*", "*", unavailable)
	m.startAway()
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	_, _, _ = m.c.Runtime.ExecSync(t.Context(), id, []string{"touch", "/tmp/end"}, patience) // which may be killed with what it ends
	require.Eventually(t, func() bool {
		newID, err := m.manager.ContainerID("default", "web", pod.UID, "main")
		return err == nil && newID != id
	}, patience, 10*time.Millisecond, "restarted from what is remembered")
	m.halt()

	m.client.Lock() // what followed the Services may not have ended yet
	m.client.ReactionChain = m.client.ReactionChain[1:]
	m.client.Unlock()
	m.start()
	after := m.await("web", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 })
	require.Equal(t, int32(3), after.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode)
}

func TestCrashLoopOnContainerd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("bad", "echo why > /dev/termination-log; exit 9"))
	pod := m.await("bad", "in back-off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	c := pod.Status.ContainerStatuses[0]
	require.Equal(t, int32(1), c.RestartCount, "the first restart is at once")
	require.Equal(t, "back-off 10s restarting failed container=main pod=bad_default(uid-bad)", c.State.Waiting.Message)
	require.Equal(t, int32(9), c.LastTerminationState.Terminated.ExitCode)
	require.Equal(t, "why\n", c.LastTerminationState.Terminated.Message)
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	require.Contains(t, m.events.list(), "Warning BackOff Back-off restarting failed container main in pod bad_default(uid-bad)")
}

func TestJobPodsEnd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.start()
	good, bad := asking(shell("good", "exit 0"), "main", 1), shell("bad", "exit 3")
	good.Spec.RestartPolicy, bad.Spec.RestartPolicy = corev1.RestartPolicyNever, corev1.RestartPolicyNever
	m.create(good)
	m.create(bad)
	m.awaitPhase("good", corev1.PodSucceeded)
	m.awaitPhase("bad", corev1.PodFailed)
	require.Zero(t, m.manager.GPUsInUse(), "the process has ended, the card is free")
	m.create(asking(shell("next", obedient), "main", 1))
	m.awaitPhase("next", corev1.PodRunning)
	_, err := m.manager.LogPath("default", "good", "", "main", false)
	require.NoError(t, err, "logs of an ended pod can be read")
	m.halt()
	m.start()
	m.create(shell("other", obedient))
	m.awaitPhase("other", corev1.PodRunning)
	require.Equal(t, int32(0), m.get("good").Status.ContainerStatuses[0].RestartCount, "never run again")
	require.Equal(t, corev1.PodSucceeded, m.get("good").Status.Phase)
}

// To the scheduler a terminal phase is room on the node: whoever comes then finds it.
func TestWhatAPodHeldIsFreeWhenItsEndIsTold(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.start()
	m.create(asking(shell("train", obedient), "main", 1))
	m.awaitPhase("train", corev1.PodRunning)
	var held []int // cards in use at each telling of an end
	m.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch := string(action.(clienttesting.PatchAction).GetPatch())
		if strings.Contains(patch, `"phase":"Succeeded"`) || strings.Contains(patch, `"phase":"Failed"`) {
			held = append(held, m.manager.GPUsInUse())
		}
		return false, nil, nil
	})
	m.delete("train", 5)
	m.awaitGone("train")
	m.halt()
	require.Equal(t, []int{0}, held)
}

func TestTwoPodsOneCard(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0", "GPU-1")
	m.start()
	m.create(asking(shell("first", "echo $CARD_0 $CARD_1 > /dev/termination-log; trap 'exit 0' TERM; while :; do sleep 0.05; done"), "main", 2))
	m.awaitPhase("first", corev1.PodRunning)
	m.create(asking(shell("second", obedient), "main", 1))
	second := m.awaitPhase("second", corev1.PodFailed)
	require.Equal(t, "OutOfnvidia.com/gpu", second.Status.Reason)
	require.Equal(t, "Pod was rejected: Node didn't have enough resource: nvidia.com/gpu, requested: 1, used: 2, capacity: 2", second.Status.Message)
	require.Eventually(t, func() bool {
		return strings.Contains(strings.Join(m.events.list(), "\n"), "Warning OutOfnvidia.com/gpu Node didn't have enough resource")
	}, patience, time.Millisecond)

	m.delete("first", 5)
	last := m.await("first", "gone", func(p *corev1.Pod) bool { return p == nil })
	require.Nil(t, last)
	m.create(asking(shell("third", obedient), "main", 2))
	m.awaitPhase("third", corev1.PodRunning)
	require.Equal(t, 2, m.manager.GPUsInUse())
	require.Equal(t, corev1.PodFailed, m.get("second").Status.Phase, "a refused pod is never judged again")
}

func TestMissingConfigMapAppearsLater(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", "cat /config/key > /dev/termination-log; "+obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/config"}}
	m.create(pod)
	waiting := m.await("app", "waiting for its ConfigMap", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, "settings")
	})
	require.Equal(t, "ContainerCreating", waiting.Status.ContainerStatuses[0].State.Waiting.Reason)
	require.Equal(t, corev1.PodPending, waiting.Status.Phase)
	require.Contains(t, strings.Join(m.events.list(), "\n"), "Warning FailedMount")

	_, err := m.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"key": "value"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	m.awaitPhase("app", corev1.PodRunning)
}

func TestMissingSecretInEnvironment(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k",
	}}}}
	m.create(pod)
	m.await("app", "CreateContainerConfigError", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	m.delete("app", 5)
	m.awaitGone("app")
}

func TestInitContainersAndSidecar(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", "cat /shared/order > /dev/termination-log; exit 0")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	mounts := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	pod.Spec.Containers[0].VolumeMounts = mounts
	initContainer := func(name, command string) corev1.Container {
		c := *pod.Spec.Containers[0].DeepCopy()
		c.Name, c.Command = name, []string{"sh", "-c", command}
		return c
	}
	side := initContainer("side", "echo side >> /shared/order; "+obedient)
	side.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	pod.Spec.InitContainers = []corev1.Container{initContainer("one", "echo one >> /shared/order"), side, initContainer("two", "sleep 0.2; echo two >> /shared/order")}
	m.create(pod)
	done := m.awaitPhase("app", corev1.PodSucceeded)
	require.Equal(t, "one\nside\ntwo\n", done.Status.ContainerStatuses[0].State.Terminated.Message)
	require.NotNil(t, done.Status.InitContainerStatuses[1].State.Terminated, "the sidecar ended with the pod")
	require.True(t, done.Status.InitContainerStatuses[2].Ready)
}

func TestStubbornContainerIsKilledAfterGrace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("deaf", "trap '' TERM; while :; do sleep 0.05; done"))
	m.awaitPhase("deaf", corev1.PodRunning)
	m.delete("deaf", 600) // longer than this test waits
	require.Eventually(t, func() bool {
		return strings.Contains(strings.Join(m.events.list(), "\n"), "Killing")
	}, patience, time.Millisecond)
	m.delete("deaf", 1) // the grace is cut, as by kubectl delete --now
	m.awaitGone("deaf")
}

func TestDaemonSetPodIsLeftPending(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("ds", obedient)
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "d", Controller: ptr.To(true)}}
	m.create(pod)
	got := m.await("ds", "told", func(p *corev1.Pod) bool { return len(p.Status.ContainerStatuses) == 1 })
	require.Equal(t, corev1.PodPending, got.Status.Phase)
	require.Equal(t, "DaemonSetNotSupported", got.Status.ContainerStatuses[0].State.Waiting.Reason)
	m.delete("ds", 5)
	m.awaitGone("ds")
}

func TestSameNameOtherUID(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("db", obedient))
	old := m.awaitPhase("db", corev1.PodRunning)
	// Forced away and made anew: the API has the new one at once.
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "db", metav1.DeleteOptions{}))
	again := shell("db", obedient)
	again.UID = "uid-new"
	m.create(again)
	pod := m.awaitPhase("db", corev1.PodRunning)
	require.NotEqual(t, old.Status.ContainerStatuses[0].ContainerID, pod.Status.ContainerStatuses[0].ContainerID)
	require.Eventually(t, func() bool {
		sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
		return err == nil && len(sandboxes) == 1 && sandboxes[0].Metadata.Uid == "uid-new"
	}, patience, 10*time.Millisecond, "the old UID's pod is ended")
}

func TestKilledSandboxIsMadeAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	m.awaitPhase("web", corev1.PodRunning)
	id, err := m.manager.SandboxID("default", "web", "")
	require.NoError(t, err)
	require.NoError(t, m.c.Runtime.StopPodSandbox(t.Context(), id))
	m.await("web", "running anew", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount >= 1 && s.State.Running != nil
	})
}

func TestStopAll(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.start()
	m.create(asking(shell("a", obedient), "main", 1))
	m.create(shell("b", obedient))
	m.awaitPhase("a", corev1.PodRunning)
	m.awaitPhase("b", corev1.PodRunning)
	m.halt()
	m.client.PrependReactor("*", "*", unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, m.manager.StopAll(ctx, 2*time.Second))
	sandboxes, err := m.c.Runtime.ListPodSandbox(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	require.Zero(t, m.manager.GPUsInUse())
	points, err := m.manager.checkpoints.Load()
	require.NoError(t, err)
	require.Empty(t, points)
}

func TestPodsOfAnEarlierBindingAreEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("old", obedient))
	m.awaitPhase("old", corev1.PodRunning)
	m.halt()
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "old", metav1.DeleteOptions{}))
	m.epoch = 2
	m.start()
	require.Eventually(t, func() bool {
		sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), &runtimeapi.PodSandboxFilter{})
		return err == nil && len(sandboxes) == 0
	}, patience, 10*time.Millisecond)
}

func TestRefusesHostAccess(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("evil", obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
	m.create(pod)
	got := m.awaitPhase("evil", corev1.PodFailed)
	require.Equal(t, "NotSupported", got.Status.Reason)
	require.Contains(t, got.Status.Message, "spec.volumes[0].hostPath")
	containers, err := m.c.Runtime.ListContainers(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, containers)
	require.True(t, contract.IsNodeName("ai-1"))
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("slow", obedient)
	pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](1)
	m.create(pod)
	got := m.awaitPhase("slow", corev1.PodFailed)
	require.Equal(t, "DeadlineExceeded", got.Status.Reason)
}

func TestAgentKilledAtAnyStepOfAStart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.create(asking(shell("web", obedient), "main", 1))
	for step := range 12 {
		m.start()
		time.Sleep(time.Duration(step*15) * time.Millisecond) // the moment is the subject
		m.halt()
	}
	m.start()
	pod := m.awaitPhase("web", corev1.PodRunning)
	require.Equal(t, int32(0), pod.Status.ContainerStatuses[0].RestartCount)
	// Running may be what an earlier life of the agent wrote: this one is still
	// taking over.
	require.Eventually(t, func() bool { return m.manager.GPUsInUse() == 1 }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
		return err == nil && len(sandboxes) == 1
	}, patience, 10*time.Millisecond)
	containers, err := m.c.Runtime.ListContainers(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, containers, 1)
}

func TestRuntimeRestarts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	before := m.awaitPhase("web", corev1.PodRunning)
	m.halt()
	m.c.Restart(t)
	m.start()
	m.create(shell("next", obedient))
	m.awaitPhase("next", corev1.PodRunning)
	require.Equal(t, before.Status, m.get("web").Status)
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	setting := func(name, sysctl string) *corev1.Pod {
		pod := shell(name, "cat /proc/sys/kernel/shm_rmid_forced > /dev/termination-log")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: sysctl, Value: "1"}}}
		return pod
	}
	m.create(setting("own", "kernel/shm_rmid_forced"))
	done := m.awaitPhase("own", corev1.PodSucceeded)
	require.Equal(t, "1\n", done.Status.ContainerStatuses[0].State.Terminated.Message)
	m.create(setting("machines", "kernel.msgmax"))
	require.Equal(t, "SysctlForbidden", m.awaitPhase("machines", corev1.PodFailed).Status.Reason)
}

func TestDebugContainerSeesItsTarget(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("web", "exec sleep 86400")
	m.create(pod)
	m.awaitPhase("web", corev1.PodRunning)
	debug := func(target string) {
		now := m.get("web")
		now.Generation++
		c := corev1.EphemeralContainerCommon(*pod.Spec.Containers[0].DeepCopy())
		c.Name, c.Command = "look-"+target, []string{"sh", "-c", "tr '\\000' ' ' < /proc/1/cmdline > /dev/termination-log"}
		now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: c, TargetContainerName: target})
		_, err := m.client.CoreV1().Pods("default").Update(t.Context(), now, metav1.UpdateOptions{})
		require.NoError(t, err)
	}
	debug("main")
	got := m.await("web", "looked at", func(p *corev1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 1 && s[0].State.Terminated != nil
	})
	require.Equal(t, "sleep 86400 ", got.Status.EphemeralContainerStatuses[0].State.Terminated.Message)
	debug("none")
	m.await("web", "told", func(p *corev1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 2 && s[1].State.Waiting != nil && s[1].State.Waiting.Message == `target container "none" does not run`
	})
	m.delete("web", 1)
	m.awaitGone("web")
}

func TestDebugContainers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("web", obedient)
	pod.Spec.InitContainers = []corev1.Container{*pod.Spec.Containers[0].DeepCopy()}
	pod.Spec.InitContainers[0].Name = "hangs"
	m.create(pod)
	m.await("web", "initializing", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].State.Running != nil
	})
	debug := func(name string, security *corev1.SecurityContext) corev1.EphemeralContainer {
		c := corev1.EphemeralContainerCommon(*pod.Spec.Containers[0].DeepCopy())
		c.Name, c.SecurityContext = name, security
		c.Command = []string{"sh", "-c", "grep CapEff /proc/self/status > /dev/termination-log"}
		return corev1.EphemeralContainer{EphemeralContainerCommon: c}
	}
	now := m.get("web")
	now.Generation++
	now.Spec.EphemeralContainers = []corev1.EphemeralContainer{
		debug("general", &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}}),
		debug("sysadmin", &corev1.SecurityContext{Privileged: ptr.To(true)}),
	}
	_, err := m.client.CoreV1().Pods("default").Update(t.Context(), now, metav1.UpdateOptions{})
	require.NoError(t, err)
	got := m.await("web", "debugged", func(p *corev1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 2 && s[0].State.Terminated != nil && s[1].State.Waiting != nil && s[1].State.Waiting.Message != ""
	})
	require.Equal(t, corev1.PodPending, got.Status.Phase, "the pod is as it was")
	require.NotNil(t, got.Status.InitContainerStatuses[0].State.Running)
	require.Contains(t, got.Status.EphemeralContainerStatuses[0].State.Terminated.Message, "a80425fb", "containerd's default capabilities")
	require.Equal(t, podstatus.CreateContainerConfigError, got.Status.EphemeralContainerStatuses[1].State.Waiting.Reason)
	require.Contains(t, got.Status.EphemeralContainerStatuses[1].State.Waiting.Message, "spec.ephemeralContainers[1].securityContext.privileged: ")
	told := m.events.String()
	require.Equal(t, 1, strings.Count(told, "Warning NotSupported capability SYS_PTRACE"))
	require.Equal(t, 1, strings.Count(told, "Warning Failed Error: spec.ephemeralContainers[1]"))

	// Nothing of this is harm to the pod when the agent has lost what it remembered.
	m.halt()
	require.NoError(t, m.manager.checkpoints.Clear())
	m.start()
	m.create(shell("next", obedient))
	m.awaitPhase("next", corev1.PodRunning)
	require.Equal(t, corev1.PodPending, m.get("web").Status.Phase)
}

// Of a machine whose name is another's by now the API shows that one's pods, for as long as
// a watch stays open: none of them begins here, and what runs, runs on.
func TestAnothersPodsDoNotBegin(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("mine", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 3"))
	mine := m.awaitPhase("mine", corev1.PodRunning)
	m.another.Store(true)
	m.create(shell("theirs", obedient))
	require.Eventually(t, func() bool { return m.worker("theirs") != nil }, patience, wink)
	id := strings.TrimPrefix(mine.Status.ContainerStatuses[0].ContainerID, "containerd://")
	_, _, _ = m.c.Runtime.ExecSync(t.Context(), id, []string{"touch", "/tmp/end"}, patience) // which may be killed with what it ends
	m.await("mine", "restarted", restarted(1))
	there, err := m.manager.lister.Pods(t.Context())
	require.NoError(t, err)
	require.NotContains(t, there, types.UID("uid-theirs"))
	require.Contains(t, there, mine.UID)
	m.another.Store(false)
	m.awaitPhase("theirs", corev1.PodRunning)
}
