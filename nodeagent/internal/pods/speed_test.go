package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkPod compares a pod's way from the API to Running, and from deletion to
// gone, with the CRI calls alone.
func BenchmarkPod(b *testing.B) {
	m := newMachine(b)
	m.start()
	var bareStart, bareStop, start, stop []time.Duration
	for i := range b.N {
		sandbox, container, took := m.bare(fmt.Sprint(i))
		bareStart = append(bareStart, took)
		begin := time.Now()
		require.NoError(b, m.c.Runtime.StopContainer(b.Context(), container, 5))
		require.NoError(b, m.c.Runtime.StopPodSandbox(b.Context(), sandbox))
		require.NoError(b, m.c.Runtime.RemovePodSandbox(b.Context(), sandbox))
		bareStop = append(bareStop, time.Since(begin))

		name := fmt.Sprintf("pod-%d", i)
		begin = time.Now()
		m.create(shell(name, obedient))
		m.awaitPhase(name, corev1.PodRunning)
		start = append(start, time.Since(begin))
		begin = time.Now()
		m.delete(name, 5)
		m.awaitGone(name)
		stop = append(stop, time.Since(begin))
	}
	b.ReportMetric(float64(median(bareStart).Microseconds())/1000, "bare-start-ms")
	b.ReportMetric(float64(median(start).Microseconds())/1000, "start-ms")
	b.ReportMetric(float64(median(bareStop).Microseconds())/1000, "bare-stop-ms")
	b.ReportMetric(float64(median(stop).Microseconds())/1000, "stop-ms")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// bare makes the sandbox and container of such a pod by CRI calls alone, with the
// very configurations that the agent makes, and says how long those calls took.
func (m *machine) bare(name string) (sandbox, container string, took time.Duration) {
	m.t.Helper()
	ctx, pod := m.t.Context(), shell("bare-"+name, obedient)
	pod.Namespace = "bare"
	w, c := newWorker(m.manager, pod.UID), &pod.Spec.Containers[0]
	image, err := m.c.Runtime.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: c.Image}, false)
	require.NoError(m.t, err)
	config, err := w.sandboxConfig(pod, 0)
	require.NoError(m.t, err)
	require.NoError(m.t, os.MkdirAll(filepath.Join(config.LogDirectory, c.Name), 0o755))
	message, err := m.manager.files.MountMessage(pod.UID, c, 0)
	require.NoError(m.t, err)
	containerConfig, err := w.containerConfig(ctx, pod, c, 0, prepared{imageRef: image.GetImage().GetId()}, []*runtimeapi.Mount{message})
	require.NoError(m.t, err)

	begin := time.Now()
	sandbox, err = m.c.Runtime.RunPodSandbox(ctx, config, "")
	require.NoError(m.t, err)
	container, err = m.c.Runtime.CreateContainer(ctx, sandbox, containerConfig, config)
	require.NoError(m.t, err)
	require.NoError(m.t, m.c.Runtime.StartContainer(ctx, container))
	return sandbox, container, time.Since(begin)
}
