package cudatest

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

// Without a card the program says what is missing; with something that stands for CUDA's
// library, in a container of its own files, it lists what that has.
func TestTheProgramRunsInAContainer(t *testing.T) {
	t.Parallel()
	c := critest.Start(t)
	files := Files(t)
	c.Load(t, "localhost/test/cuda:1", files)
	with := maps.Clone(files)
	with["/lib64/libcuda.so.1"] = read(t, Driver(t))
	c.Load(t, "localhost/test/cuda:2", with)

	sandboxConfig := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	sandbox, err := c.Runtime.RunPodSandbox(t.Context(), sandboxConfig, "")
	require.NoError(t, err)
	list := func(image string) (string, string) {
		id, err := c.Runtime.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: image}, Image: &runtimeapi.ImageSpec{Image: image},
			Envs:  []*runtimeapi.KeyValue{{Key: "LD_LIBRARY_PATH", Value: []byte("/lib64")}},
			Linux: &runtimeapi.LinuxContainerConfig{},
		}, sandboxConfig)
		require.NoError(t, err)
		require.NoError(t, c.Runtime.StartContainer(t.Context(), id))
		stdout, stderr, _ := c.Runtime.ExecSync(t.Context(), id, []string{Path, "list"}, time.Minute)
		return string(stdout), string(stderr)
	}
	said, why := list("localhost/test/cuda:1")
	require.Empty(t, said)
	require.Contains(t, why, "libcuda.so.1: cannot open shared object file")
	said, why = list("localhost/test/cuda:2")
	require.Empty(t, why)
	require.Equal(t, "a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0 works\na1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1 works\n", said)
}
