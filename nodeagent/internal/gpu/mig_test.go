package gpu

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// cut gives the mock's cards a layout, and lets the machine see it.
func cut(t *testing.T, m *Machine, c *cutter, layout string) Found {
	t.Helper()
	parsed, err := simulated.ParseLayout(layout)
	require.NoError(t, err)
	require.NoError(t, c.cut(parsed))
	require.NoError(t, m.Refresh(t.Context()))
	return m.Found()
}

func count(devices []topology.Device) map[string]int {
	n := map[string]int{}
	for _, d := range devices {
		n[string(d.Resource)]++
	}
	return n
}

// Whole cards and slices on one machine: a card in MIG mode is no nvidia.com/gpu, and a
// new layout is seen, in the CDI spec too.
func TestSlicesBesideWholeCards(t *testing.T) {
	t.Parallel()
	m, c := mockedMIG(t, dgxh100.New())
	whole := m.Found()
	found := cut(t, m, c, "0:3g.40gb,2g.20gb,1g.10gb+me,1c.1g.10gb;1:1g.10gb*7;2:")
	require.Len(t, found.Cards, 8)
	require.Equal(t, map[string]int{
		"nvidia.com/gpu": 5, "nvidia.com/mig-3g.40gb": 1, "nvidia.com/mig-2g.20gb": 1, "nvidia.com/mig-1g.10gb.me": 1, "nvidia.com/mig-1g.10gb": 8,
	}, count(found.Devices()))
	first := found.Cards[0]
	require.True(t, first.MIG)
	require.Equal(t, "3g.40gb", first.Slices[0].Profile)
	require.Equal(t, "1g.10gb+me", first.Slices[2].Profile)
	require.EqualValues(t, 40960<<20, first.Slices[0].MemoryBytes())
	require.Equal(t, []int{1, 2, 3, 4}, []int{first.Slices[0].GPUInstance, first.Slices[1].GPUInstance, first.Slices[2].GPUInstance, first.Slices[3].GPUInstance})
	require.True(t, found.Cards[2].MIG)
	require.Empty(t, found.Cards[2].Slices)
	require.Empty(t, m.CDIDevice(first.UUID), "nobody gets it whole")
	require.Equal(t, m.kind+"="+first.Slices[0].UUID, m.CDIDevice(first.Slices[0].UUID))

	labels := m.NodeLabels()
	slices := map[string]string{}
	for name, value := range labels {
		if strings.HasPrefix(name, "nvidia.com/mig-3g.40gb.") {
			slices[strings.TrimPrefix(name, "nvidia.com/mig-3g.40gb.")] = value
		}
	}
	require.Empty(t, cmp.Diff(map[string]string{
		"count": "1", "product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", "memory": "40960", "multiprocessors": "48", "slices.gi": "3", "slices.ci": "3",
		"engines.copy": "3", "engines.decoder": "2", "engines.encoder": "0", "engines.jpeg": "0", "engines.ofa": "0",
	}, slices))
	require.Equal(t, "8", labels["nvidia.com/mig-1g.10gb.count"])
	require.Equal(t, "8", labels["nvidia.com/gpu.count"], "as GPU feature discovery counts")
	require.Equal(t, "mixed", labels["nvidia.com/mig.strategy"])

	again := cut(t, m, c, "0:7g.80gb")
	require.Equal(t, map[string]int{"nvidia.com/gpu": 7, "nvidia.com/mig-7g.80gb": 1}, count(again.Devices()))
	require.Empty(t, m.CDIDevice(first.Slices[0].UUID))
	cache, err := cdi.NewCache(cdi.WithSpecDirs(m.o.CDIDir), cdi.WithAutoRefresh(false))
	require.NoError(t, err)
	require.Nil(t, cache.GetDevice(m.kind+"="+first.Slices[0].UUID))
	require.NotNil(t, cache.GetDevice(m.kind+"="+again.Cards[0].Slices[0].UUID))
	require.Equal(t, whole.Devices(), cut(t, m, c, "").Devices())
	require.Equal(t, first.Slices, cut(t, m, c, "0:3g.40gb,2g.20gb,1g.10gb+me,1c.1g.10gb").Cards[0].Slices, "the same layout has the same UUIDs")
}

// Every machine that can be simulated has the profiles of NVIDIA's MIG User Guide
// ("Supported MIG Profiles").
func TestProfilesOfSimulatedMachines(t *testing.T) {
	t.Parallel()
	for machine, layout := range map[string]string{
		"dgxa100": "0:3g.20gb,2g.10gb,1g.5gb;1:4g.20gb;2:7g.40gb",
		"dgxh100": "0:3g.40gb,2g.20gb,1g.10gb;1:4g.40gb,1g.20gb;2:7g.80gb",
		"dgxh200": "0:3g.71gb,2g.35gb,1g.18gb;1:4g.71gb,1g.35gb;2:7g.141gb",
		"dgxb200": "0:3g.90gb,2g.45gb,1g.23gb;1:4g.90gb,1g.45gb;2:7g.180gb",
	} {
		m, err := Open(Options{Simulate: machine, MachineID: "m", NvidiaSMI: program(t), CDIDir: t.TempDir(), SimulateMIG: layout})
		require.NoError(t, err, machine)
		for index, profiles := range map[int]string{0: strings.Split(layout, ";")[0], 2: strings.Split(layout, ";")[2]} {
			var have []string
			for _, s := range m.Found().Cards[index].Slices {
				have = append(have, s.Profile)
			}
			require.Equal(t, strings.Split(profiles[2:], ","), have)
		}
	}
}

func TestAModeThatWaitsForAReset(t *testing.T) {
	t.Parallel()
	s := dgxa100.New()
	m := mocked(t, s)
	card(s, 1).GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	require.NoError(t, m.Refresh(t.Context()))
	require.True(t, m.Found().Cards[1].MIGPending)
	require.False(t, m.Found().Cards[1].MIG, "it is whole until then")
	require.Len(t, m.Found().Devices(), 8)
}

// A slice measures its memory, and passes off nothing of the whole card as its own.
func TestWhatASliceMeasures(t *testing.T) {
	t.Parallel()
	m, c := mockedMIG(t, dgxh100.New())
	slice := cut(t, m, c, "3:1g.10gb").Cards[3].Slices[0]
	reading, err := m.Read(t.Context(), slice.UUID)
	require.NoError(t, err)
	require.Equal(t, Reading{"DCGM_FI_DEV_FB_FREE": 10240, "DCGM_FI_DEV_FB_USED": 0, "DCGM_FI_DEV_FB_RESERVED": 0}, reading)
}

// An event of one GPU instance concerns its slices, and one of none the card.
func TestEventsOfSlices(t *testing.T) {
	t.Parallel()
	card := Card{UUID: "GPU-a", Slices: []Slice{
		{UUID: "MIG-a", GPUInstance: 1}, {UUID: "MIG-b", GPUInstance: 2}, {UUID: "MIG-c", GPUInstance: 2, ComputeInstance: 1},
	}}
	require.Nil(t, concerned(card, nvml.EventData{GpuInstanceId: noInstance, ComputeInstanceId: noInstance}))
	require.Equal(t, []string{"MIG-b", "MIG-c"}, concerned(card, nvml.EventData{GpuInstanceId: 2, ComputeInstanceId: noInstance}))
	require.Equal(t, []string{"MIG-c"}, concerned(card, nvml.EventData{GpuInstanceId: 2, ComputeInstanceId: 1}))
	require.Nil(t, concerned(card, nvml.EventData{GpuInstanceId: 9, ComputeInstanceId: 0}), "one that was cut anew: nobody knows whose it was")
}

// Without the device nodes of slices the whole cards still go to containers.
func TestSlicesThatNoContainerCouldUse(t *testing.T) {
	t.Parallel()
	s := dgxh100.New()
	c := complete(s, "")
	require.NoError(t, c.cut(simulated.Layout{0: {"1g.10gb"}}))
	root := driverRoot(t)
	dir := t.TempDir()
	m, err := Open(Options{NVML: s, CDIDir: dir, DriverRoot: root, CDIHook: "/usr/bin/nvidia-cdi-hook"})
	require.NoError(t, err)
	require.Len(t, m.Found().Cards, 7)
	require.Len(t, m.Found().Broken, 1)
	require.Contains(t, m.Found().Broken[0].Cause, "its MIG slices can't be given to containers")
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	require.NoError(t, err)
	require.Len(t, cache.ListDevices(), 7)
}

func TestLayoutsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for layout, want := range map[string]string{
		"0:1g.10gb*8":              "no place is left for the 1g.10gb",
		"0:4g.40gb,4g.40gb":        "no place is left for the 4g.40gb",
		"0:1g.10gb+me,1g.10gb+me":  "no place is left for the 1g.10gb+me",
		"0:3g.40gb,4g.40gb":        "no place is left for the 4g.40gb",
		"0:1g.5gb":                 `"1g.5gb" is none of its profiles`,
		"8:1g.10gb":                "the machine has 8",
		"0":                        "want INDEX:PROFILE",
		"x:1g.10gb":                "want INDEX:PROFILE",
		"0:1g.10gb;0:1g.10gb":      "card 0 stands there twice",
		"0:1g.10gb*0":              "want PROFILE*COUNT",
		"0:1g.10gb,,1g.10gb":       "a profile of card 0 is empty",
		"0:1g.10gb*99999999999999": "want PROFILE*COUNT",
	} {
		_, err := Open(Options{Simulate: "dgxh100", MachineID: "m", NvidiaSMI: program(t), CDIDir: filepath.Join(t.TempDir(), "cdi"), SimulateMIG: layout})
		require.ErrorContains(t, err, want, layout)
	}
}
