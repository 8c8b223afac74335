package gpumetrics_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
	"github.com/ainode/ainode/nodeagent/internal/gpumetrics"
)

var update = flag.Bool("update", false, "write what kubectl ainode top is tested with")

// What an agent shows of NVIDIA's mock of eight cards is what the tests of kubectl ainode
// top read: one card in use, one cut and in use, one that failed.
func TestTopReadsWhatIsShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	machine, err := gpu.Open(gpu.Options{Simulate: "dgxh200", SimulateMIG: "7:3g.71gb,1g.18gb", MachineID: "m", CDIDir: dir, StateDir: dir, NvidiaSMI: smi})
	require.NoError(t, err)
	cards := machine.Found().Cards
	tracker, err := gpuhealth.New(gpuhealth.Options{
		Cards: machine, Clock: clocktesting.NewFakeClock(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)),
		Path: filepath.Join(dir, "gpus.json"), Boot: "b1", Faulted: func(gpuhealth.Fault) {}, Changed: func() {},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "faults"), []byte(cards[5].UUID+" 79\n"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tracker.Run(ctx) })
	defer func() { cancel(); running.Wait() }()
	require.Eventually(t, func() bool {
		for _, s := range tracker.States() {
			if s.Sample.Reading == nil || (s.UUID == cards[5].UUID) != (s.LastXID == 79) {
				return false
			}
		}
		return true
	}, 2*time.Minute, 5*time.Millisecond, "all are measured, and the fault is known")

	owners := map[string]string{cards[0].UUID: "train", cards[7].Slices[1].UUID: "serve"}
	families, err := gpumetrics.Gatherer(gpumetrics.Options{
		Cards: tracker, Node: "ai-1", Simulated: true,
		Owner: func(uuid string) (types.NamespacedName, string, bool) {
			if name := owners[uuid]; name != "" {
				return types.NamespacedName{Namespace: "ml", Name: name}, "main", true
			}
			return types.NamespacedName{}, "", false
		},
	}).Gather()
	require.NoError(t, err)
	var text strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(t, err)
	}
	const golden = "../../../plugin/internal/top/testdata/dgxh200.metrics"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String(), "if that is meant: go test ./nodeagent/internal/gpumetrics -update")
}
