package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

// given is the directory of a container that has cards 5 and 2 of its machine.
func given(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, uuid := range map[int]string{5: "GPU-bbbb", 2: "GPU-aaaa"} {
		require.NoError(t, simulated.Card{
			UUID: uuid, Index: i, Product: "NVIDIA H200", MemoryBytes: 144384 << 20, ComputeCapability: "9.0",
			Machine: "dgxh200", DriverVersion: "550.54.15", CUDAVersion: "12.4",
		}.Write(dir))
	}
	return dir
}

func TestRun(t *testing.T) {
	t.Parallel()
	dir := given(t)
	for name, test := range map[string]struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		"-L":            {"-L", 0, "GPU 0: NVIDIA H200 [SIMULATED] (UUID: GPU-aaaa)\nGPU 1: NVIDIA H200 [SIMULATED] (UUID: GPU-bbbb)\n", ""},
		"one by number": {"-i 1 -L", 0, "GPU 1: NVIDIA H200 [SIMULATED] (UUID: GPU-bbbb)\n", ""},
		"one by UUID":   {"--id=GPU-aaaa --list-gpus", 0, "GPU 0: NVIDIA H200 [SIMULATED] (UUID: GPU-aaaa)\n", ""},
		"query": {"--query-gpu=index,uuid,name,memory.total --format=csv", 0,
			"index, uuid, name, memory.total [MiB]\n0, GPU-aaaa, NVIDIA H200 [SIMULATED], 144384 MiB\n1, GPU-bbbb, NVIDIA H200 [SIMULATED], 144384 MiB\n", ""},
		"query for a script": {"--query-gpu=memory.total,driver_version,compute_cap,utilization.gpu --format=csv,noheader,nounits", 0,
			"144384, 550.54.15, 9.0, 0\n144384, 550.54.15, 9.0, 0\n", ""},
		"unknown field":  {"--query-gpu=index,clocks.sm --format=csv", 2, "", `Field "clocks.sm" is not a valid field to query (in the SIMULATED nvidia-smi).`},
		"unknown option": {"-q", 2, "", `option "-q" is not simulated`},
		"no format":      {"--query-gpu=index", 2, "", "needs --format=csv"},
		"not ours":       {"-i 7", 6, "No devices were found: \"7\" is none of this container's simulated cards\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			require.Equal(t, test.code, run(strings.Fields(test.args), dir, &stdout, &stderr))
			require.Equal(t, test.stdout, stdout.String())
			require.Contains(t, stderr.String(), test.stderr)
			if test.stderr != "" {
				require.Contains(t, stderr.String(), "SIMULATED", "an error says what this program is")
			}
		})
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	require.Zero(t, run(nil, given(t), &stdout, &stdout))
	lines := strings.Split(strings.TrimRight(stdout.String(), "\n"), "\n")
	require.True(t, strings.HasPrefix(lines[0], "SIMULATED"), lines[0])
	for _, line := range lines[1:] {
		require.Len(t, line, width+2, "the table is straight: %q", line)
	}
	for _, part := range []string{"GPU-aaaa", "GPU-bbbb", "Driver Version: 550.54.15", "CUDA Version: 12.4", "0MiB / 144384MiB"} {
		require.Contains(t, stdout.String(), part)
	}
}

// A container that was given slices sees their cards, and of them those slices alone.
func TestSlices(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, s := range []simulated.Slice{{UUID: "MIG-b", Profile: "1g.10gb", Index: 4, MemoryBytes: 10 << 30}, {UUID: "MIG-a", Profile: "3g.40gb", Index: 0, MemoryBytes: 40 << 30}} {
		require.NoError(t, simulated.Card{UUID: "GPU-b", Index: 3, Product: "NVIDIA H100 80GB HBM3", Slice: &s}.Write(dir), i)
	}
	require.NoError(t, simulated.Card{UUID: "GPU-a", Index: 1, Product: "NVIDIA H100 80GB HBM3"}.Write(dir))
	var stdout bytes.Buffer
	require.Zero(t, run([]string{"-L"}, dir, &stdout, &stdout))
	require.Equal(t, `GPU 0: NVIDIA H100 80GB HBM3 [SIMULATED] (UUID: GPU-a)
GPU 1: NVIDIA H100 80GB HBM3 [SIMULATED] (UUID: GPU-b)
  MIG 3g.40gb        Device  0: (UUID: MIG-a)
  MIG 1g.10gb        Device  1: (UUID: MIG-b)
`, stdout.String())
	stdout.Reset()
	require.Zero(t, run([]string{"--query-gpu=index,mig.mode.current,utilization.gpu", "--format=csv,noheader"}, dir, &stdout, &stdout))
	require.Equal(t, "0, Disabled, 0 %\n1, Enabled, [N/A]\n", stdout.String())
	stdout.Reset()
	require.Zero(t, run(nil, dir, &stdout, &stdout))
	for i, line := range strings.Split(strings.TrimRight(stdout.String(), "\n"), "\n") {
		require.True(t, i == 0 || len(line) == width+2, "the table is straight: %q", line)
	}
	require.Contains(t, stdout.String(), "0MiB / 10240MiB")
}

func TestWithoutCards(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "no")} {
		var stdout bytes.Buffer
		require.Equal(t, 6, run([]string{"-L"}, dir, &stdout, &stdout))
		require.Equal(t, "No devices were found\n", stdout.String())
	}
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "GPU-x.json"), []byte("{"), 0o600))
	var stderr bytes.Buffer
	require.Equal(t, 255, run(nil, dir, &stderr, &stderr))
	require.Contains(t, stderr.String(), `read simulated card "GPU-x.json"`)
}
