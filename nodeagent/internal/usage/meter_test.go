package usage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// node is a runtime with one container a pod, and pods with one volume.
type node struct {
	*Meter
	root  string
	pods  []*corev1.Pod
	stray error // of a sandbox that is none of ours
	clock *testclock.FakePassiveClock
}

func newNode(t *testing.T, names ...string) *node {
	t.Helper()
	n := &node{root: t.TempDir(), clock: testclock.NewFakePassiveClock(start)}
	for _, name := range names {
		n.pods = append(n.pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}})
	}
	n.Meter = New(Options{
		Runtime: n, Clock: n.clock, Pods: func() []*corev1.Pod { return n.pods },
		Containers: func() []*runtimeapi.ContainerStatus {
			running := runtimeapi.ContainerState_CONTAINER_RUNNING
			return []*runtimeapi.ContainerStatus{
				{Id: "main-of-a", State: running, StartedAt: start.Add(time.Hour).UnixNano()},
				{Id: "main-of-b", State: running, StartedAt: start.UnixNano()},
				{Id: "before-of-a", State: runtimeapi.ContainerState_CONTAINER_EXITED},
			}
		},
		LogDirectory: func(p *corev1.Pod) string { return filepath.Join(n.root, "logs", p.Name) },
		Volumes: func(p *corev1.Pod) map[string]string {
			return map[string]string{"scratch": filepath.Join(n.root, "volumes", p.Name)}
		},
		Claims: func(uid types.UID) []stats.VolumeStats {
			return []stats.VolumeStats{{Name: "data-of-" + string(uid), FsStats: stats.FsStats{UsedBytes: ptr.To[uint64](40 << 30)}}}
		},
		Node: Node{Root: n.root, Folder: n.root, ImageDisk: func(context.Context) (machine.Disk, error) { return machine.DiskOf(n.root) }},
	})
	return n
}

var sandboxes = []string{"a", "b", "someone-elses"}

func (n *node) ListPodSandboxStats(ctx context.Context, _ *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	var all []*runtimeapi.PodSandboxStats
	for _, name := range sandboxes {
		one, err := n.PodSandboxStats(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (n *node) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	var all []*runtimeapi.PodSandbox
	for _, name := range sandboxes {
		all = append(all, &runtimeapi.PodSandbox{Id: name, Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "ns", Name: name, Uid: name}})
	}
	return all, nil
}

func (n *node) PodSandboxStats(_ context.Context, name string) (*runtimeapi.PodSandboxStats, error) {
	if name == "someone-elses" && n.stray != nil {
		return nil, n.stray
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{Metadata: &runtimeapi.PodSandboxMetadata{Namespace: "ns", Name: name, Uid: name}},
		Linux: &runtimeapi.LinuxPodSandboxStats{
			Memory:     &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: 7}},
			Process:    &runtimeapi.ProcessUsage{ProcessCount: &runtimeapi.UInt64Value{Value: 3}},
			Containers: []*runtimeapi.ContainerStats{container("before-of-" + name), container("main-of-" + name)},
		},
	}, nil
}

func container(id string) *runtimeapi.ContainerStats {
	return &runtimeapi.ContainerStats{
		Attributes:    &runtimeapi.ContainerAttributes{Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: "main"}},
		WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: &runtimeapi.UInt64Value{Value: 1 << 20}, InodesUsed: &runtimeapi.UInt64Value{Value: 2}},
	}
}

// write makes a file of so many KiB.
func (n *node) write(t *testing.T, path string, kib int) string {
	t.Helper()
	full := filepath.Join(n.root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(t, os.WriteFile(full, make([]byte, kib<<10), 0o600))
	return full
}

func TestDiskIsMeasuredWhereAskedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a", "b")
	n.write(t, "logs/a/main/0.log", 100)
	n.write(t, "logs/a/main/0.log.20261124-030000.gz", 100)
	n.write(t, "logs/a/over/0.log", 50) // an init container that has ended
	once := n.write(t, "volumes/a/deep/er/file", 500)
	require.NoError(t, os.Link(once, filepath.Join(n.root, "volumes/a/twice")))
	require.NoError(t, os.Symlink("/", filepath.Join(n.root, "volumes/a/elsewhere")))

	all, err := n.WithDisk(t.Context(), func(p *corev1.Pod) bool { return p.Name == "a" })
	require.NoError(t, err)
	require.Len(t, all, 2, "another's pod is none of ours")
	a, b := all[0], all[1]
	require.EqualValues(t, 7, *b.Memory.WorkingSetBytes)
	require.EqualValues(t, 3, *b.ProcessStats.ProcessCount)
	require.Nil(t, b.EphemeralStorage)
	require.Nil(t, b.Containers[0].Logs)
	require.Len(t, a.Containers, 1, "the one before has ended")
	require.True(t, start.Add(time.Hour).Equal(a.Containers[0].StartTime.Time), "its own start, not the pod's")

	within := func(kib uint64, bytes *uint64) {
		t.Helper()
		require.GreaterOrEqual(t, *bytes, kib<<10)
		require.Less(t, *bytes, (kib+40)<<10, "folders take up something too")
	}
	within(200, a.Containers[0].Logs.UsedBytes)
	within(500, a.VolumeStats[0].UsedBytes)
	within(1024+250+500, a.EphemeralStorage.UsedBytes)
	require.Equal(t, "scratch", a.VolumeStats[0].Name)
}

// They lie elsewhere: a pod is not evicted for what it has in them.
func TestPersistentVolumesAreNoDiskOfTheNode(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a", "b")
	names := func(pods []stats.PodStats) (all []string) {
		for _, p := range pods {
			for _, v := range p.VolumeStats {
				all = append(all, v.Name)
			}
		}
		return all
	}
	s, err := n.Summary(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, []string{"scratch", "data-of-a", "scratch", "data-of-b"}, names(s.Pods))
	require.Less(t, *s.Pods[0].EphemeralStorage.UsedBytes, uint64(40<<30))
	require.Len(t, n.Volumes(), 2)
	s, err = n.Summary(t.Context(), false)
	require.NoError(t, err)
	require.Empty(t, names(s.Pods))
	pods, err := n.WithDisk(t.Context(), func(*corev1.Pod) bool { return true })
	require.NoError(t, err)
	require.Equal(t, []string{"scratch", "scratch"}, names(pods))
}

func TestOneSandboxDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a", "b")
	n.stray = errors.New("it has no cgroup parent")
	all, err := n.Meter.Pods(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
}

func TestAWalkIsGoodForAMinute(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a")
	all := func(*corev1.Pod) bool { return true }
	used := func() uint64 {
		pods, err := n.WithDisk(t.Context(), all)
		require.NoError(t, err)
		require.Len(t, pods, 1)
		return *pods[0].VolumeStats[0].UsedBytes
	}
	require.Zero(t, used(), "a folder that is not there yet")
	n.write(t, "volumes/a/file", 10)
	require.Zero(t, used())
	n.clock.SetTime(start.Add(measureEvery))
	require.Positive(t, used())
	require.Len(t, n.disks, 1)
	n.pods = nil
	_, err := n.WithDisk(t.Context(), all)
	require.NoError(t, err)
	require.Empty(t, n.disks)
}
