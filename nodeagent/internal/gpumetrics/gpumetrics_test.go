package gpumetrics

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
)

type cards []gpuhealth.State

func (c cards) States() []gpuhealth.State { return c }
func (c cards) Counters() map[gpuhealth.Count]uint64 {
	return map[gpuhealth.Count]uint64{{UUID: "GPU-b", Reason: "XID79", Class: gpuhealth.Drain}: 3}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	g := Gatherer(Options{
		Node: "ai-1", Simulated: true,
		Cards: cards{
			{
				Card: gpu.Card{UUID: "GPU-a", Product: "NVIDIA H200", MemoryBytes: 3 << 20},
				Sample: gpuhealth.Sample{Busy: time.Unix(1700000000, 0), Reading: gpu.Reading{
					"DCGM_FI_DEV_GPU_UTIL": 42, "DCGM_FI_DEV_POWER_USAGE": 301.5, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 1,
				}},
			},
			{Card: gpu.Card{UUID: "GPU-b", Index: 1, MinorNumber: 5, Product: "NVIDIA H200"}, Trouble: "lost", LastXID: 79},
			{
				Card:   gpu.Card{UUID: "GPU-b", Index: 1, MinorNumber: 5, Product: "NVIDIA H200"},
				Slice:  &gpu.Slice{UUID: "MIG-c", Profile: "1g.18gb+me", GPUInstance: 7, Attributes: nvml.DeviceAttributes{MemorySizeMB: 18432}},
				Sample: gpuhealth.Sample{Reading: gpu.Reading{"DCGM_FI_DEV_FB_USED": 7}},
			},
			{Card: gpu.Card{Index: 2}, Trouble: "it does not open"},
		},
		Owner: func(uuid string) (types.NamespacedName, string, bool) {
			return types.NamespacedName{Namespace: "ml", Name: "train-" + uuid}, "main", true
		},
	})
	const a = `{GPU_I_ID="",GPU_I_PROFILE="",Hostname="ai-1",MIG_UUID="",UUID="GPU-a",container="main",device="nvidia0",gpu="0",modelName="NVIDIA H200 [SIMULATED]",namespace="ml",pod="train-GPU-a"}`
	const b = `{GPU_I_ID="",GPU_I_PROFILE="",Hostname="ai-1",MIG_UUID="",UUID="GPU-b",container="main",device="nvidia5",gpu="1",modelName="NVIDIA H200 [SIMULATED]",namespace="ml",pod="train-GPU-b"}`
	const c = `{GPU_I_ID="7",GPU_I_PROFILE="1g.18gb+me",Hostname="ai-1",MIG_UUID="MIG-c",UUID="GPU-b",container="main",device="nvidia5",gpu="1",modelName="NVIDIA H200 [SIMULATED]",namespace="ml",pod="train-MIG-c"}`
	want := strings.NewReplacer("{a}", a, "{b}", b, "{c}", c).Replace(`# HELP DCGM_FI_DEV_ECC_DBE_VOL_TOTAL Total number of double-bit volatile ECC errors.
# TYPE DCGM_FI_DEV_ECC_DBE_VOL_TOTAL counter
DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{a} 1
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{c} 7
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{a} 42
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{a} 301.5
# HELP DCGM_FI_DEV_XID_ERRORS Value of the last XID error encountered; 0 if there was none since the agent started.
# TYPE DCGM_FI_DEV_XID_ERRORS gauge
DCGM_FI_DEV_XID_ERRORS{a} 0
DCGM_FI_DEV_XID_ERRORS{b} 79
DCGM_FI_DEV_XID_ERRORS{c} 0
# HELP ainode_gpu_faults_total What befell a GPU since the agent started, by what has to be done about it.
# TYPE ainode_gpu_faults_total counter
ainode_gpu_faults_total{Hostname="ai-1",UUID="GPU-b",class="Drain",reason="XID79"} 3
# HELP ainode_gpu_last_busy_timestamp_seconds When the GPU was last seen to compute, or first looked at.
# TYPE ainode_gpu_last_busy_timestamp_seconds gauge
ainode_gpu_last_busy_timestamp_seconds{a} 1.7e+09
# HELP ainode_gpu_memory_total_mebibytes Memory of the GPU (in MiB).
# TYPE ainode_gpu_memory_total_mebibytes gauge
ainode_gpu_memory_total_mebibytes{a} 3
ainode_gpu_memory_total_mebibytes{c} 18432
# HELP ainode_gpu_usable Whether pods may have the GPU or slice, or slices of the GPU.
# TYPE ainode_gpu_usable gauge
ainode_gpu_usable{a} 1
ainode_gpu_usable{b} 0
ainode_gpu_usable{c} 1
`)
	families, err := g.Gather()
	require.NoError(t, err)
	var got strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&got, family)
		require.NoError(t, err)
	}
	require.Equal(t, want, got.String())
}

// What the chart's dashboard and alerts ask for is there.
func TestDashboardAndAlertsAskForWhatIsShown(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	descriptions := make(chan *prometheus.Desc, 100)
	collector{}.Describe(descriptions)
	close(descriptions)
	for d := range descriptions {
		known[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	for _, file := range []string{"dashboard.json", "rules.yaml"} {
		raw, err := os.ReadFile("../../../charts/ainode/files/monitoring/" + file)
		require.NoError(t, err)
		asked := regexp.MustCompile(`\b(DCGM_FI_DEV|ainode_gpu)_\w+`).FindAllString(string(raw), -1)
		require.NotEmpty(t, asked)
		for _, name := range asked {
			require.True(t, known[name], "%s asks for %s", file, name)
		}
		if strings.HasSuffix(file, ".json") {
			require.True(t, json.Valid(raw))
		}
	}
}
