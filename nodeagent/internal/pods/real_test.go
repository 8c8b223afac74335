//go:build gpu

package pods

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpu/cudatest"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
)

// onCUDA makes the pod one whose containers can run a CUDA program.
func onCUDA(pod *corev1.Pod) *corev1.Pod {
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Image = "localhost/test/cuda:1"
	}
	return pod
}

// A CUDA program in a pod sees the pod's card or slice, and no other, and a pod that asked
// for none sees nothing of any, also where it makes itself the card's device node.
func TestRealCardsInPods(t *testing.T) {
	m := newMachine(t)
	m.c.Load(t, "localhost/test/cuda:1", cudatest.Files(t))
	machine, err := gpu.Open(gpu.Options{CDIDir: m.c.CDIDir(), CDIHook: cudatest.Hook(t)})
	require.NoError(t, err)
	tracker, err := gpuhealth.New(gpuhealth.Options{
		Cards: machine, Clock: clock.RealClock{}, Path: filepath.Join(t.TempDir(), "gpus.json"), Boot: "b1",
		Faulted: func(f gpuhealth.Fault) { t.Errorf("a fault: %+v", f) }, Changed: func() {},
	})
	require.NoError(t, err)
	m.real = tracker
	m.start()

	devices := tracker.Devices()
	require.NotEmpty(t, devices)
	for i, d := range devices { // one pod a device, all at once: each must have another
		m.create(askingFor(onCUDA(shell(fmt.Sprint("cuda-", i), obedient)), "main", d.Resource, 1))
	}
	seen := map[string]bool{}
	for i := range devices {
		pod := m.awaitPhase(fmt.Sprint("cuda-", i), corev1.PodRunning)
		own := m.manager.gpus.Assignment(pod.UID).Devices()
		require.Len(t, own, 1)
		require.False(t, seen[own[0]], "two pods have %s", own[0])
		seen[own[0]] = true
		_, number, _ := strings.Cut(own[0], "-") // GPU-… or MIG-…
		require.Equal(t, number+" works", m.sh(pod, cudatest.Path+" list"))
		list := m.sh(pod, "nvidia-smi -L")
		for _, other := range devices {
			require.Equal(t, other.UUID == own[0], strings.Contains(list, other.UUID), "%s\n%s", other.UUID, list)
		}
		t.Logf("%s: CUDA in the pod says %s works; nvidia-smi there:\n%s\n%s", own[0], number, list, m.sh(pod, "ls -l /dev | busybox grep nvidia"))
	}

	m.create(onCUDA(shell("none", obedient)))
	none := m.awaitPhase("none", corev1.PodRunning)
	require.Empty(t, m.sh(none, "ls /dev | busybox grep nvidia || true"))
	said := m.sh(none, cudatest.Path+" list 2>&1 || true")
	require.Contains(t, said, "libcuda.so.1")
	// NVIDIA's character devices have the major number 195 (Documentation/admin-guide/devices.txt).
	refused := m.sh(none, "busybox mknod /tmp/card c 195 0 && cat /tmp/card 2>&1 || true")
	require.Contains(t, refused, "Operation not permitted")
	t.Logf("without a card: %s; a device node of its own: %s", said, refused)
}
