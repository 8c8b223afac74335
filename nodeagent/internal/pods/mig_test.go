package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// A pod's containers have their slices and no other, over a restart of the agent too; a
// card that is cut anew under it is told, and nothing hangs.
func TestAPodWithSlices(t *testing.T) {
	t.Parallel()
	const one, seven = corev1.ResourceName("nvidia.com/mig-1g.10gb"), corev1.ResourceName("nvidia.com/mig-7g.80gb")
	m := newMachine(t)
	m.writeCards("GPU-0", "GPU-1_mig-1g.10gb_a", "GPU-1_mig-1g.10gb_b", "GPU-2_mig-7g.80gb_c")
	m.start()
	pod := shell("app", `test -n "$CARD_a" -a -z "$CARD_b$CARD_c$CARD_0" || exit 9; `+obedient)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	other := shell("", obedient).Spec.Containers[0]
	other.Name = "other"
	pod.Spec.Containers = append(pod.Spec.Containers, other)
	m.create(askingFor(askingFor(pod, "main", one, 1), "other", seven, 1))
	running := m.awaitPhase("app", corev1.PodRunning)
	status := func(pod *corev1.Pod, container string) []corev1.ResourceStatus {
		for _, c := range pod.Status.ContainerStatuses {
			if c.Name == container {
				return c.AllocatedResourcesStatus
			}
		}
		return nil
	}
	healthy := func(name corev1.ResourceName, id corev1.ResourceID) []corev1.ResourceStatus {
		return []corev1.ResourceStatus{{Name: name, Resources: []corev1.ResourceHealth{{ResourceID: id, Health: corev1.ResourceHealthStatusHealthy}}}}
	}
	require.Equal(t, healthy(one, "GPU-1_mig-1g.10gb_a"), status(running, "main"))
	require.Equal(t, healthy(seven, "GPU-2_mig-7g.80gb_c"), status(running, "other"))
	require.Equal(t, 2, m.manager.GPUsInUse())
	owner, container, ok := m.manager.Owner("GPU-2_mig-7g.80gb_c")
	require.True(t, ok)
	require.Equal(t, "app other", owner.Name+" "+container)
	_, _, ok = m.manager.Owner("GPU-2")
	require.False(t, ok, "nobody has the whole card")

	m.halt()
	m.start()
	m.create(askingFor(shell("late", obedient), "main", seven, 1))
	refused := m.awaitPhase("late", corev1.PodFailed)
	require.Equal(t, "OutOfnvidia.com/mig-7g.80gb", refused.Status.Reason)
	require.Equal(t, "Pod was rejected: Node didn't have enough resource: nvidia.com/mig-7g.80gb, requested: 1, used: 1, capacity: 1", refused.Status.Message)
	m.create(askingFor(shell("missing", obedient), "main", "nvidia.com/mig-2g.20gb", 1))
	require.Equal(t, "Pod was rejected: Node didn't have enough resource: nvidia.com/mig-2g.20gb, requested: 1, used: 0, capacity: 0",
		m.awaitPhase("missing", corev1.PodFailed).Status.Message)

	const gone = "GPU-1_mig-1g.10gb_a is no more: the MIG slices of GPU-1 were changed"
	m.halt()
	m.writeCards("GPU-0", "GPU-1", "GPU-2_mig-7g.80gb_c")
	m.start()
	require.Eventually(t, func() bool { return m.manager.GPUsInUse() == 2 }, patience, wink)
	m.fail("GPU-1_mig-1g.10gb_a", gone)
	told := m.await("app", "told", func(p *corev1.Pod) bool { return faultOf(p) != nil })
	require.Equal(t, gone, faultOf(told).Message)
	require.Equal(t, corev1.ResourceHealthStatusUnhealthy, status(told, "main")[0].Resources[0].Health)
	require.Equal(t, healthy(seven, "GPU-2_mig-7g.80gb_c"), status(told, "other"))
	require.Contains(t, m.events.list(), "Warning GPUFault "+gone)
	require.Equal(t, corev1.PodRunning, told.Status.Phase, "it may do something else")
	counts, cards := m.manager.Withheld()
	require.Equal(t, 1, counts["nvidia.com/gpu"])
	require.Equal(t, []string{"GPU-1"}, cards)

	m.delete("app", 1)
	m.awaitGone("app")
	require.Zero(t, m.manager.GPUsInUse())
	m.create(asking(shell("next", obedient), "main", 2))
	m.awaitPhase("next", corev1.PodRunning)
}
