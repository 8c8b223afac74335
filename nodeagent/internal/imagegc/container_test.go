package imagegc

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// runtime is a real one.
type runtime struct {
	criapi.RuntimeService
	criapi.ImageManagerService
}

func (r runtime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return r.RuntimeService.ListContainers(ctx, filter)
}

func TestARealRuntimeKeepsWhatIsInUse(t *testing.T) {
	c := critest.Start(t)
	const used, unused = "localhost/test/used:1", "localhost/test/unused:1"
	c.Load(t, used, map[string]string{"only": "here"})
	c.Load(t, unused, map[string]string{"only": "there"})
	ctx := t.Context()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	pod, err := c.Runtime.RunPodSandbox(ctx, sandbox, "")
	require.NoError(t, err)
	_, err = c.Runtime.CreateContainer(ctx, pod, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: used},
	}, sandbox)
	require.NoError(t, err)

	folder, err := c.Runtime.ImageFolder(ctx)
	require.NoError(t, err)
	real, err := machine.DiskOf(folder)
	require.NoError(t, err)
	require.Positive(t, real.Available)

	var present map[string]bool
	clock := testclock.NewFakeClock(time.Now())
	collector := New(Options{
		Runtime: runtime{c.Runtime.RuntimeService, c.Runtime.Images}, Recorder: record.NewFakeRecorder(1), Clock: clock, High: 85, Low: 80,
		Node:    func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} },
		Present: func(ids map[string]bool, _ time.Time) { present = ids },
		// Too full, by six bytes.
		Disk: func(context.Context) (machine.Disk, error) {
			return machine.Disk{Capacity: 100, Available: 14}, nil
		},
	})
	require.NoError(t, collector.look(ctx))
	require.Len(t, present, 3)
	require.Len(t, collector.Images(), 3)
	clock.Step(minAge)
	require.NoError(t, collector.Collect(ctx))

	left, err := c.Runtime.Images.ListImages(ctx, nil)
	require.NoError(t, err)
	var names []string
	for _, image := range left {
		names = append(names, image.RepoTags...)
	}
	require.ElementsMatch(t, []string{critest.Pause, critest.Busybox, used}, names)
	require.NoError(t, collector.RemoveUnused(ctx))
	require.NoError(t, collector.look(ctx))
	require.Len(t, present, 2, "the sandboxes' image (busybox has the same content) is pinned, the other in use")
}
