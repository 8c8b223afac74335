package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpumetrics"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// What befalls one simulated card of eight reaches the Node, its events and the
// metrics, and the news is told before anybody's time.
func TestAFaultIsToldEverywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	cards, err := gpu.Open(gpu.Options{Simulate: "dgxh200", MachineID: "m", CDIDir: filepath.Join(dir, "cdi"), NvidiaSMI: smi})
	require.NoError(t, err)
	events := record.NewFakeRecorder(4)
	tn := &tenant{
		cfg: config.Run{StateDir: config.State(dir)}, node: "ai-1", clock: clock.RealClock{},
		machine: machine.Identity{BootID: "b1"},
	}
	require.NoError(t, tn.followCards(cards))
	tn.tellNode(events)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tn.tracker.Run(ctx) })
	defer func() { cancel(); running.Wait() }()

	before := tn.cardHealth()
	require.Equal(t, 8, before.Usable[contract.GPUResource])
	require.Equal(t, corev1.ConditionTrue, before.Status)
	require.Equal(t, "8 simulated GPUs can be used", before.Message)
	require.Equal(t, "hopper", before.Labels["nvidia.com/gpu.family"])

	ill := cards.Found().UUIDs()[5]
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cdi", "simulated", "faults"), []byte(ill+" 79\n"), 0o600))
	select {
	case <-tn.cardNews:
	case <-time.After(2 * time.Minute):
		t.Fatal("no news")
	}
	require.Equal(t, "Warning GPUFault XID 79 on "+ill+": GPU has fallen off the bus", <-events.Events)
	after := tn.cardHealth()
	require.Equal(t, 8, after.Total[contract.GPUResource])
	require.Equal(t, 7, after.Usable[contract.GPUResource])
	require.Equal(t, corev1.ConditionFalse, after.Status)

	var text strings.Builder
	families, err := gpumetrics.Gatherer(tn.cardMetrics()).Gather()
	require.NoError(t, err)
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(t, err)
	}
	require.Regexp(t, `(?m)^ainode_gpu_usable\{.*Hostname="ai-1",.*UUID="`+ill+`",.*SIMULATED.*\} 0$`, text.String())
	require.Regexp(t, `(?m)^DCGM_FI_DEV_XID_ERRORS\{.*Hostname="ai-1",.*UUID="`+ill+`",.*\} 79$`, text.String())
	require.Len(t, facts(tn.machine, &addresses{own: "10.0.0.7"}, measured{}, cards, after.Total).GPUs, 8)
}

// Where the runtime gives cards to no container, the Node has none to give, and says what
// to do; somebody who does it is noticed, and a runtime that does not answer changes nothing.
func TestARuntimeThatGivesNoCards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	cards, err := gpu.Open(gpu.Options{Simulate: "dgxh200", MachineID: "m", CDIDir: filepath.Join(dir, "cdi"), NvidiaSMI: smi})
	require.NoError(t, err)
	tn := &tenant{cfg: config.Run{StateDir: config.State(dir)}, node: "ai-1", clock: clock.RealClock{}, machine: machine.Identity{BootID: "b1"}}
	require.NoError(t, tn.followCards(cards))
	require.Equal(t, 8, tn.cardHealth().Usable[contract.GPUResource], "until the runtime was asked")
	require.False(t, tn.injects().Injects(), "and no container starts without its card meanwhile")

	program, _ := critest.Wrapped(t, "nvidia-container-runtime")
	c := critest.StartAs(t, critest.Setup{Old: true, Handlers: map[string]string{"nvidia": program}})
	tn.runtime = c.Runtime
	tn.askInjection(t.Context())
	health := tn.cardHealth()
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 0}, health.Usable)
	require.Equal(t, 8, health.Total[contract.GPUResource])
	require.Equal(t, corev1.ConditionFalse, health.Status)
	require.Equal(t, "RuntimeGivesNone", health.Reason)
	require.Contains(t, health.Message, "set enable_cdi = true")
	require.NotContains(t, health.Message, "nvidia-ctk", "which would not help simulated cards")

	c.SetUp(t, critest.Setup{Old: true, CDI: true})
	tn.askInjection(t.Context())
	require.Equal(t, corev1.ConditionFalse, tn.cardHealth().Status, "the old connection is closed: what was known stays")
	tn.runtime = c.Runtime
	tn.askInjection(t.Context())
	require.Equal(t, 8, tn.cardHealth().Usable[contract.GPUResource])
}

// Slices are counted where cards are; a card that is cut anew is told before anybody's
// time, and the Node hears of no fault.
func TestSlicesAreToldEverywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	cards, err := gpu.Open(gpu.Options{Simulate: "dgxh100", SimulateMIG: "0:3g.40gb*2;1:1g.10gb*7", MachineID: "m", CDIDir: filepath.Join(dir, "cdi"), NvidiaSMI: smi})
	require.NoError(t, err)
	events := record.NewFakeRecorder(4)
	tn := &tenant{
		cfg: config.Run{StateDir: config.State(dir)}, node: "ai-1", clock: clock.RealClock{}, machine: machine.Identity{BootID: "b1"},
	}
	require.NoError(t, tn.followCards(cards))
	tn.tellNode(events)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tn.tracker.Run(ctx) })
	defer func() { cancel(); running.Wait() }()

	const one, three = corev1.ResourceName("nvidia.com/mig-1g.10gb"), corev1.ResourceName("nvidia.com/mig-3g.40gb")
	before := tn.cardHealth()
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 6, one: 7, three: 2}, before.Usable)
	require.Equal(t, "6 simulated GPUs and 9 MIG slices can be used", before.Message)
	told := facts(tn.machine, &addresses{own: "10.0.0.7"}, measured{}, cards, before.Total)
	require.Len(t, told.GPUs, 8)
	require.True(t, told.GPUs[1].MIG)
	require.Equal(t, cards.Found().Cards[1].Slices[6].UUID, told.GPUs[1].Slices[6].UUID)
	seven := told.Capacity[string(one)]
	require.EqualValues(t, 7, seven.Value())
	var text strings.Builder
	families, err := gpumetrics.Gatherer(tn.cardMetrics()).Gather()
	require.NoError(t, err)
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(t, err)
	}
	require.Equal(t, 9, strings.Count(text.String(), "\nainode_gpu_usable{GPU_I_ID=\"")-8)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "cdi", "simulated", "faults"), []byte("mig 1:1g.10gb*6\n"), 0o600))
	// Not by what is usable: slices that are gone are first of no use, then none.
	for tn.cardHealth().Total[one] != 6 {
		select {
		case <-tn.cardNews:
		case <-time.After(2 * time.Minute):
			t.Fatal("no news")
		}
	}
	after := tn.cardHealth()
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 7, one: 6}, after.Total)
	require.Equal(t, corev1.ConditionTrue, after.Status)
	require.NotContains(t, after.Labels, "nvidia.com/mig-3g.40gb.count")
	require.Equal(t, "6", after.Labels["nvidia.com/mig-1g.10gb.count"])
	require.Empty(t, events.Events)
}
