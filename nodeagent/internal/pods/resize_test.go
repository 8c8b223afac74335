package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sized is a pod of one container with these requests, its limits the same.
func sized(name, cpu, memory string) *corev1.Pod {
	pod := shell(name, obedient)
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
	return pod
}

// resize changes what the pod wants as the resize subresource does.
func (m *machine) resize(name, cpu, memory string) {
	m.t.Helper()
	list := fmt.Sprintf(`{"cpu":%q,"memory":%q}`, cpu, memory)
	patch := fmt.Sprintf(`{"metadata":{"generation":%d},"spec":{"containers":[{"name":"main","resources":{"requests":%s,"limits":%s}}]}}`,
		m.get(name).Generation+1, list, list)
	_, err := m.client.CoreV1().Pods("default").Patch(m.t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(m.t, err)
}

func (m *machine) awaitCPU(name, cpu string) *corev1.Pod {
	m.t.Helper()
	return m.await(name, "resized to "+cpu, func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].Ready && s[0].Resources != nil && s[0].Resources.Requests.Cpu().String() == cpu &&
			s[0].AllocatedResources.Cpu().String() == cpu && p.Status.ObservedGeneration == p.Generation
	})
}

func conditionOf(p *corev1.Pod, name corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == name {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// memoryLimit is what the kernel has for the cgroup of the pod, or of its container.
func (m *machine) memoryLimit(pod *corev1.Pod, container string) string {
	m.t.Helper()
	below := filepath.Join(m.cgroup, "pod"+string(pod.UID), container)
	for _, file := range []string{"/sys/fs/cgroup/memory" + below + "/memory.limit_in_bytes", "/sys/fs/cgroup" + below + "/memory.max"} {
		if content, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(content))
		}
	}
	m.t.Fatalf("no memory limit of cgroup %s", below)
	return ""
}

func TestResizeInPlace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(sized("web", "1", "64Mi"))
	before := m.awaitCPU("web", "1")
	id := strings.TrimPrefix(before.Status.ContainerStatuses[0].ContainerID, "containerd://")
	require.Equal(t, "67108864", m.memoryLimit(before, id))
	require.Equal(t, "67108864", m.memoryLimit(before, ""), "the pod's own cgroup is limited too")

	m.resize("web", "2", "128Mi")
	m.awaitCPU("web", "2")
	require.Equal(t, "134217728", m.memoryLimit(before, id))
	require.Equal(t, "134217728", m.memoryLimit(before, ""))
	m.resize("web", "500m", "32Mi")
	after := m.awaitCPU("web", "500m")
	require.Equal(t, "33554432", m.memoryLimit(before, id))
	require.Equal(t, "33554432", m.memoryLimit(before, ""))
	require.Equal(t, before.Status.ContainerStatuses[0].ContainerID, after.Status.ContainerStatuses[0].ContainerID, "in place")
	require.Nil(t, conditionOf(after, corev1.PodResizePending))
	require.Nil(t, conditionOf(after, corev1.PodResizeInProgress))
}

func TestResizeByRestart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := sized("web", "1", "64Mi")
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	pod.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
	m.create(pod)
	m.awaitCPU("web", "1")
	m.resize("web", "2", "64Mi")
	require.Zero(t, m.awaitCPU("web", "2").Status.ContainerStatuses[0].RestartCount, "cpu needs none")
	m.resize("web", "3", "128Mi")
	after := m.awaitCPU("web", "3").Status.ContainerStatuses[0]
	require.Equal(t, int32(1), after.RestartCount)
	require.Equal(t, "134217728", m.memoryLimit(pod, strings.TrimPrefix(after.ContainerID, "containerd://")))
	require.Contains(t, m.events.list(), "Normal Killing Container main resize requires restart")

	// Narrower than what the container has that still runs.
	m.resize("web", "2", "32Mi")
	after = m.awaitCPU("web", "2").Status.ContainerStatuses[0]
	require.Equal(t, int32(2), after.RestartCount)
	require.Equal(t, "33554432", m.memoryLimit(pod, ""))
	require.NotContains(t, m.events.String(), eventResizeError)
}

func TestResizeWaitsForRoom(t *testing.T) {
	t.Parallel()
	m := newMachine(t) // of 64 processors
	m.start()
	m.create(sized("first", "40", "64Mi"))
	m.create(sized("web", "20", "64Mi"))
	m.awaitCPU("first", "40")
	m.awaitCPU("web", "20")
	m.resize("web", "65", "64Mi")
	pending := func(reason string) {
		t.Helper()
		p := m.await("web", reason, func(p *corev1.Pod) bool {
			c := conditionOf(p, corev1.PodResizePending)
			return c != nil && c.Reason == reason
		})
		require.Equal(t, "20", p.Status.ContainerStatuses[0].AllocatedResources.Cpu().String())
		require.Equal(t, "20", p.Status.ContainerStatuses[0].Resources.Requests.Cpu().String())
	}
	pending(corev1.PodReasonInfeasible)
	m.resize("web", "30", "64Mi")
	pending(corev1.PodReasonDeferred)

	m.halt()
	m.start()
	m.create(sized("third", "4", "64Mi")) // what is not granted takes no room
	m.awaitCPU("third", "4")
	pending(corev1.PodReasonDeferred)
	m.delete("first", 5)
	m.awaitGone("first")
	require.Nil(t, conditionOf(m.awaitCPU("web", "30"), corev1.PodResizePending))
}
