package usage

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

const patience = time.Minute

// On a real containerd, by the cgroups of the machine that the test runs on.
func TestFiguresOfARealPod(t *testing.T) {
	const parent, group = "/ainode-usage-test", "/ainode-usage-test/pod-u"
	t.Cleanup(func() { require.NoError(t, cgroup.Remove(cgroup.Mount, parent)) })
	c := critest.Start(t)
	ctx := t.Context()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: group, SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	sandboxID, err := c.Runtime.RunPodSandbox(ctx, sandbox, "")
	require.NoError(t, err)
	run := func(attempt uint32) string {
		id, err := c.Runtime.CreateContainer(ctx, sandboxID, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "busy", Attempt: attempt}, Image: &runtimeapi.ImageSpec{Image: critest.Busybox},
			Command: []string{"sh", "-c", "busybox dd if=/dev/zero of=/file bs=1M count=5; i=0; while test $i -lt 20000; do i=$((i+1)); done; sleep 3600"},
		}, sandbox)
		require.NoError(t, err)
		require.NoError(t, c.Runtime.StartContainer(ctx, id))
		return id
	}
	ended, before := run(0), time.Now()
	require.NoError(t, c.Runtime.StopContainer(ctx, ended, 0))
	run(1)

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
	m := New(Options{
		Runtime: c.Runtime, Pods: func() []*corev1.Pod { return []*corev1.Pod{pod} }, Clock: clock.RealClock{},
		Containers: func() (all []*runtimeapi.ContainerStatus) {
			list, err := c.Runtime.ListContainers(ctx, nil)
			require.NoError(t, err)
			for _, one := range list {
				status, err := c.Runtime.ContainerStatus(ctx, one.Id, false)
				require.NoError(t, err)
				all = append(all, status.Status)
			}
			return all
		},
		LogDirectory: func(*corev1.Pod) string { return t.TempDir() }, Volumes: func(*corev1.Pod) map[string]string { return nil },
		Claims: func(types.UID) []stats.VolumeStats { return nil },
		Node: Node{Name: "ai-1", Root: "/", Folder: t.TempDir(), Cgroup: parent, ImageDisk: func(ctx context.Context) (machine.Disk, error) {
			folder, err := c.Runtime.ImageFolder(ctx)
			require.NoError(t, err)
			return machine.DiskOf(folder)
		}},
	})

	var s *stats.Summary
	has := func() bool {
		var err error
		s, err = m.Summary(ctx, true)
		return err == nil && len(s.Pods) == 1 && len(s.Pods[0].Containers) == 1 && s.Pods[0].Containers[0].CPU != nil &&
			*s.Pods[0].Containers[0].CPU.UsageCoreNanoSeconds > 0 && *s.Pods[0].Containers[0].Rootfs.UsedBytes >= 5<<20
	}
	require.Eventually(t, has, patience, 100*time.Millisecond, "containerd measures layers every ten seconds")
	one := s.Pods[0].Containers[0]
	require.Equal(t, "busy", one.Name)
	require.True(t, one.StartTime.After(before), "the start of the one that runs")
	require.Positive(t, *one.Memory.WorkingSetBytes)
	require.GreaterOrEqual(t, *s.Pods[0].CPU.UsageCoreNanoSeconds, *one.CPU.UsageCoreNanoSeconds, "the pod is all of its containers")
	require.Positive(t, *s.Pods[0].Memory.WorkingSetBytes)
	require.GreaterOrEqual(t, *s.Pods[0].ProcessStats.ProcessCount, uint64(1))
	require.GreaterOrEqual(t, *s.Pods[0].EphemeralStorage.UsedBytes, uint64(5<<20))

	node := s.Node
	require.Positive(t, *node.CPU.UsageCoreNanoSeconds)
	require.Positive(t, *node.Memory.WorkingSetBytes)
	require.Positive(t, *node.Fs.AvailableBytes)
	require.Positive(t, *node.Runtime.ImageFs.CapacityBytes)
	require.Positive(t, *node.Rlimit.NumOfRunningProcesses)
	require.True(t, node.StartTime.Time.Before(before))
	require.Equal(t, stats.SystemContainerPods, node.SystemContainers[0].Name)
	require.Positive(t, *node.SystemContainers[0].CPU.UsageCoreNanoSeconds)
	require.Positive(t, *node.SystemContainers[0].Memory.WorkingSetBytes)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NotContains(t, string(text), `"swap"`)
}
