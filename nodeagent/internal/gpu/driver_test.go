package gpu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpu/cudatest"
)

// All but the cards themselves is real: NVIDIA's toolkit describes the driver, containerd
// reads that, NVIDIA's hook makes its libraries found, and a program finds CUDA's in its
// container, with the device node of its card and of no other. (What it then asks is no
// driver of NVIDIA's, so it lists what that stand-in has.)
func TestContainersFindTheDriver(t *testing.T) {
	t.Parallel()
	root, hook := gpu.DriverRoot(t), cudatest.Hook(t)
	library, err := os.ReadFile(cudatest.Driver(t))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15"), library, 0o755))
	c := critest.Start(t)
	m, err := gpu.Open(gpu.Options{NVML: gpu.H100s(), CDIDir: c.CDIDir(), DriverRoot: root, CDIHook: hook})
	require.NoError(t, err)
	c.Load(t, "localhost/test/cuda:1", cudatest.Files(t))

	sandboxConfig := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	sandbox, err := c.Runtime.RunPodSandbox(t.Context(), sandboxConfig, "")
	require.NoError(t, err)
	see := func(name string, devices ...*runtimeapi.CDIDevice) string {
		t.Helper()
		id, err := c.Runtime.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "localhost/test/cuda:1"},
			CDIDevices: devices, Linux: &runtimeapi.LinuxContainerConfig{},
		}, sandboxConfig)
		require.NoError(t, err)
		require.NoError(t, c.Runtime.StartContainer(t.Context(), id), "%s", c.Log())
		out, _, err := c.Runtime.ExecSync(t.Context(), id, []string{"sh", "-c", "ls /dev | busybox grep nvidia; " + cudatest.Path + " list 2>&1"}, time.Minute)
		if err != nil {
			return "failed: " + string(out)
		}
		return string(out)
	}
	for _, i := range []int{5, 2} {
		said := see(fmt.Sprint("card", i), &runtimeapi.CDIDevice{Name: m.CDIDevice(m.Found().UUIDs()[i])})
		require.Equal(t, fmt.Sprintf("nvidia%d\na0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0 works\na1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1 works\n", i), said)
	}
	require.Contains(t, see("none"), "failed: libcuda.so.1: cannot open shared object file")
}
