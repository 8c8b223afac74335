package gpu_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// simulatedSMI builds the stand-in for nvidia-smi.
func simulatedSMI(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs containers; left out with -short")
	}
	smi := filepath.Join(t.TempDir(), "nvidia-smi-simulated")
	build := exec.Command("go", "build", "-o", smi, "github.com/ainode/ainode/nodeagent/cmd/nvidia-smi-simulated")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return smi
}

// A container of a real runtime sees its cards and slices in the simulated nvidia-smi,
// and no other; two containers of one pod see their own.
func TestContainersSeeTheirCards(t *testing.T) {
	t.Parallel()
	smi := simulatedSMI(t)
	c := critest.Start(t)
	inv, err := gpu.Open(gpu.Options{Simulate: "dgxh200", SimulateMIG: "3:3g.71gb,1g.18gb*2", MachineID: "m1", CDIDir: c.CDIDir(), NvidiaSMI: smi})
	require.NoError(t, err)
	uuids := inv.Found().UUIDs()

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "0d9a6b6e-2222"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "two", Image: critest.Busybox, Command: []string{"sleep", "2147483647"}},
			{Name: "one", Image: critest.Busybox, Command: []string{"sleep", "2147483647"}},
			{Name: "sliced", Image: critest.Busybox, Command: []string{"sleep", "2147483647"}},
			{Name: "none", Image: critest.Busybox, Command: []string{"sleep", "2147483647"}},
		}},
	}
	ctx := t.Context()
	sandboxConfig, err := crispec.Sandbox(pod, crispec.SandboxOptions{LogDirectory: t.TempDir()})
	require.NoError(t, err)
	sandbox, err := c.Runtime.RunPodSandbox(ctx, sandboxConfig, "")
	require.NoError(t, err)
	start := func(index int, cards ...string) string {
		o := crispec.ContainerOptions{ImageRef: critest.Busybox, GPUs: cards}
		for _, card := range cards {
			o.CDIDevices = append(o.CDIDevices, inv.CDIDevice(card))
		}
		var err error
		o.Env, err = crispec.Env(ctx, pod, &pod.Spec.Containers[index], nil, crispec.Facts{})
		require.NoError(t, err)
		config, err := crispec.Container(pod, &pod.Spec.Containers[index], o)
		require.NoError(t, err)
		id, err := c.Runtime.CreateContainer(ctx, sandbox, config, sandboxConfig)
		require.NoError(t, err)
		require.NoError(t, c.Runtime.StartContainer(ctx, id))
		return id
	}
	list := func(id string, command ...string) string {
		stdout, _, err := c.Runtime.ExecSync(ctx, id, command, time.Minute)
		require.NoError(t, err)
		return string(stdout)
	}

	cut := inv.Found().Cards[3]
	two, one, sliced, none := start(0, uuids[6], uuids[1]), start(1, uuids[0]), start(2, uuids[0], cut.Slices[2].UUID), start(3)
	require.Equal(t, "GPU 0: NVIDIA H200 141GB HBM3e [SIMULATED] (UUID: "+uuids[1]+")\n"+
		"GPU 1: NVIDIA H200 141GB HBM3e [SIMULATED] (UUID: "+uuids[6]+")\n", list(two, "/usr/bin/nvidia-smi", "-L"))
	require.Equal(t, "GPU 0: NVIDIA H200 141GB HBM3e [SIMULATED] (UUID: "+uuids[0]+")\n", list(one, "/usr/bin/nvidia-smi", "-L"))
	require.Equal(t, "GPU 0: NVIDIA H200 141GB HBM3e [SIMULATED] (UUID: "+uuids[0]+")\n"+
		"GPU 1: NVIDIA H200 141GB HBM3e [SIMULATED] (UUID: "+cut.UUID+")\n"+
		"  MIG 1g.18gb        Device  0: (UUID: "+cut.Slices[2].UUID+")\n", list(sliced, "/usr/bin/nvidia-smi", "-L"))
	require.True(t, strings.HasPrefix(list(one, "/usr/bin/nvidia-smi"), "SIMULATED"))
	require.Contains(t, list(one, "env"), "AINODE_SIMULATED_GPUS=dgxh200")
	require.Contains(t, list(one, "env"), "HOSTNAME=p\n", "in the machine's network the runtime would say the machine's name")
	_, _, err = c.Runtime.ExecSync(ctx, none, []string{"/usr/bin/nvidia-smi"}, time.Minute)
	require.Error(t, err, "a container without a card has no nvidia-smi")

	status, err := c.Runtime.ContainerStatus(context.WithoutCancel(ctx), two, false)
	require.NoError(t, err)
	info, err := crispec.ParseContainer(status.Status.Labels, status.Status.Annotations)
	require.NoError(t, err)
	require.Equal(t, []string{uuids[6], uuids[1]}, info.GPUs)
	require.Equal(t, runtimeapi.ContainerState_CONTAINER_RUNNING, status.Status.State)
}
