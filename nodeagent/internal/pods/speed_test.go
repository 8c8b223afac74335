package pods

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

// BenchmarkPod compares a pod's way from the API to Running, and from deletion to
// gone, with the CRI calls alone.
func BenchmarkPod(b *testing.B) {
	m := newMachine(b)
	m.start()
	var bareStart, bareStop, start, stop []time.Duration
	for i := range b.N {
		begin := time.Now()
		sandbox, container := m.bare(fmt.Sprint(i))
		bareStart = append(bareStart, time.Since(begin))
		begin = time.Now()
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

// bare makes the sandbox and container of such a pod by CRI calls alone.
func (m *machine) bare(name string) (sandbox, container string) {
	m.t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bare", Uid: name}, LogDirectory: m.t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	ctx := m.t.Context()
	sandbox, err := m.c.Runtime.RunPodSandbox(ctx, config, "")
	require.NoError(m.t, err)
	container, err = m.c.Runtime.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: critest.Busybox},
		Command: []string{"sh", "-c", obedient}, LogPath: "main.log", Linux: &runtimeapi.LinuxContainerConfig{},
	}, config)
	require.NoError(m.t, err)
	require.NoError(m.t, m.c.Runtime.StartContainer(ctx, container))
	return sandbox, container
}
