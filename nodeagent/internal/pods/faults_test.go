package pods

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
)

const fell = "XID 79 on GPU-0: GPU has fallen off the bus"

// fail lets a card fail as its tracker tells it.
func (m *machine) fail(card, message string) {
	m.failed.Store(card, message)
	m.manager.CardFault(card, message, true)
	m.manager.CardsChanged()
}

func faultOf(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == contract.GPUFaultCondition {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// The victim is told, is left alone while it runs, and is not started again on the
// card that failed; its successor gets another one.
func TestTheVictimOfACard(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0", "GPU-1")
	m.start()
	m.create(asking(shell("train", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"), "main", 1))
	before := m.awaitPhase("train", corev1.PodRunning)
	device := func(pod *corev1.Pod) corev1.ResourceHealth {
		return pod.Status.ContainerStatuses[0].AllocatedResourcesStatus[0].Resources[0]
	}
	require.Equal(t, corev1.ResourceHealth{ResourceID: "GPU-0", Health: corev1.ResourceHealthStatusHealthy}, device(before))
	owner, container, ok := m.manager.Owner("GPU-0")
	require.True(t, ok)
	require.Equal(t, types.NamespacedName{Namespace: "default", Name: "train"}, owner)
	require.Equal(t, "main", container)
	_, _, ok = m.manager.Owner("GPU-1")
	require.False(t, ok)

	m.fail("GPU-0", fell)
	running := m.await("train", "marked", func(p *corev1.Pod) bool { return faultOf(p) != nil })
	require.Equal(t, corev1.ConditionTrue, faultOf(running).Status)
	require.Equal(t, "XID79", faultOf(running).Reason)
	require.Equal(t, fell, faultOf(running).Message)
	require.Equal(t, corev1.ResourceHealthStatusUnhealthy, device(running).Health)
	require.Equal(t, fell, *device(running).Message)
	require.Contains(t, m.events.list(), "Warning GPUFault "+fell)
	require.Equal(t, before.Status.ContainerStatuses[0].ContainerID, running.Status.ContainerStatuses[0].ContainerID, "it may have survived")
	require.Equal(t, corev1.PodRunning, running.Status.Phase)

	m.term(running)
	ended := m.awaitPhase("train", corev1.PodFailed)
	require.Equal(t, "GPUFault", ended.Status.Reason)
	require.Equal(t, fell, ended.Status.Message)
	require.Zero(t, ended.Status.ContainerStatuses[0].RestartCount)
	require.NotNil(t, faultOf(ended), "a Job's podFailurePolicy reads it")
	require.Zero(t, m.manager.GPUsInUse())

	m.create(asking(shell("next", obedient), "main", 1))
	next := m.awaitPhase("next", corev1.PodRunning)
	require.EqualValues(t, "GPU-1", device(next).ResourceID)
	m.failed.Delete("GPU-0")
	m.create(asking(shell("later", obedient), "main", 1))
	require.EqualValues(t, "GPU-0", device(m.awaitPhase("later", corev1.PodRunning)).ResourceID)
	require.NotNil(t, faultOf(m.get("train")), "what became of the pod came of it")
}

// term sends TERM to the pod's first process once that is ready for it.
func (m *machine) term(pod *corev1.Pod) {
	m.t.Helper()
	m.awaitOutput(pod.Name, "ready")
	id := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	// What it ends may take the command along: only what comes of it says something.
	_, _, _ = m.c.Runtime.ExecSync(m.t.Context(), id, []string{"kill", "-TERM", "1"}, patience)
}

// A pod that is done is done, and one that failed for good is told of the card.
func TestHowPodsEndOnACardThatFailed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0", "GPU-1")
	m.start()
	waiting := func(name, exit string) *corev1.Pod {
		pod := asking(shell(name, "trap 'exit "+exit+"' TERM; echo ready; while :; do sleep 0.05; done"), "main", 1)
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		return pod
	}
	m.create(waiting("good", "0"))
	good := m.awaitPhase("good", corev1.PodRunning)
	m.create(waiting("bad", "5"))
	bad := m.awaitPhase("bad", corev1.PodRunning)
	m.fail("GPU-0", "XID 48 on GPU-0: double-bit ECC error")
	m.fail("GPU-1", "XID 48 on GPU-1: double-bit ECC error")
	for _, pod := range []*corev1.Pod{good, bad} {
		m.term(pod)
	}
	m.awaitPhase("good", corev1.PodSucceeded)
	ended := m.awaitPhase("bad", corev1.PodFailed)
	require.Equal(t, "GPUFault", ended.Status.Reason)
	require.Equal(t, "XID 48 on GPU-1: double-bit ECC error", ended.Status.Message)
	require.EqualValues(t, 5, ended.Status.ContainerStatuses[0].State.Terminated.ExitCode)
}

// While the driver is silent no container starts without its card, and none is given
// up for it.
func TestNoContainerStartsWithoutItsCard(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.gone.Store("GPU-0", true)
	m.start()
	m.create(asking(shell("app", obedient), "main", 1))
	m.await("app", "waiting", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, "its card GPU-0 is not there")
	})
	m.gone.Delete("GPU-0")
	m.awaitPhase("app", corev1.PodRunning)
}

func TestAnErrorOfThePodsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.start()
	m.create(asking(shell("app", obedient), "main", 1))
	m.awaitPhase("app", corev1.PodRunning)
	m.manager.CardFault("GPU-0", "XID 31 on GPU-0: GPU memory page fault", false)
	m.manager.CardFault("GPU-7", "of nobody", true)
	require.Contains(t, m.events.list(), "Warning GPUError XID 31 on GPU-0: GPU memory page fault")
	require.NotContains(t, m.events.String(), "of nobody")
	require.Nil(t, faultOf(m.get("app")))
}
