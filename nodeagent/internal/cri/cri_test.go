package cri_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

func TestListAndWatch(t *testing.T) {
	t.Parallel()
	c := critest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	changed := make(chan types.UID, 100)
	go cri.Watch(ctx, c.Runtime, clock.RealClock{}, func(uid types.UID) { changed <- uid })
	next := func() types.UID {
		t.Helper()
		select {
		case uid := <-changed:
			return uid
		case <-ctx.Done():
			require.FailNow(t, "nothing was heard")
			return ""
		}
	}
	for range 2 { // what happened before the runtime followed its events is not missed
		require.Equal(t, types.UID(""), next(), "opening the stream says: look at every pod")
	}

	lister := cri.NewLister(c.Runtime)
	pod, err := lister.Pod(ctx, "none")
	require.NoError(t, err)
	require.Empty(t, pod.Sandboxes)

	labels := map[string]string{
		kubelettypes.KubernetesPodUIDLabel: "u1", kubelettypes.KubernetesPodNameLabel: "p", kubelettypes.KubernetesPodNamespaceLabel: "ns",
	}
	sandboxConfig := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u1"}, Labels: labels, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	sandbox, err := c.Runtime.RunPodSandbox(ctx, sandboxConfig, "")
	require.NoError(t, err)
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: critest.Busybox},
		Command: []string{"sh", "-c", "exit 7"}, Labels: labels, LogPath: "c.log", Linux: &runtimeapi.LinuxContainerConfig{},
	}
	container, err := c.Runtime.CreateContainer(ctx, sandbox, config, sandboxConfig)
	require.NoError(t, err)
	require.NoError(t, c.Runtime.StartContainer(ctx, container))

	for {
		require.Equal(t, types.UID("u1"), next())
		pod, err = lister.Pod(ctx, "u1")
		require.NoError(t, err)
		if len(pod.Containers) == 1 && pod.Containers[0].State == runtimeapi.ContainerState_CONTAINER_EXITED {
			break
		}
	}
	require.Equal(t, int32(7), pod.Containers[0].ExitCode)
	require.Equal(t, "ns", pod.Namespace)
	require.Equal(t, sandbox, pod.SandboxOf[container])
	require.Equal(t, runtimeapi.PodSandboxState_SANDBOX_READY, pod.SandboxStatus.State)

	c.Restart(t)
	lister = cri.NewLister(c.Runtime)
	pods, err := lister.Pods(ctx)
	require.NoError(t, err)
	require.Len(t, pods, 1)
}

func TestConnectNamesTheEndpoint(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := cri.Connect(ctx, "/nowhere/containerd.sock")
	require.ErrorContains(t, err, `"unix:///nowhere/containerd.sock"`)
}
