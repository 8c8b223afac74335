package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// program makes a file that can stand for nvidia-smi.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nvidia-smi-simulated")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755))
	return path
}

func openOn(t *testing.T, machineID, machine, cdiDir string) *Machine {
	t.Helper()
	inv, err := Open(Options{Simulate: machine, MachineID: machineID, CDIDir: cdiDir, NvidiaSMI: program(t)})
	require.NoError(t, err)
	return inv
}

func TestSimulatedMachines(t *testing.T) {
	t.Parallel()
	for machine, want := range map[string]struct {
		product, mib, family, compute string
		nvLinks                       int
	}{
		"dgxa100": {"NVIDIA-A100-SXM4-40GB", "40960", "ampere", "8", 12},
		"dgxh100": {"NVIDIA-H100-80GB-HBM3", "81920", "hopper", "9", 18},
		"dgxh200": {"NVIDIA-H200-141GB-HBM3e", "144384", "hopper", "9", 18},
		"dgxb200": {"NVIDIA-B200-180GB-HBM3e", "184320", "blackwell", "10", 18},
	} {
		t.Run(machine, func(t *testing.T) {
			t.Parallel()
			inv := openOn(t, "m1", machine, t.TempDir())
			found := inv.Found()
			require.Len(t, found.Cards, 8)
			require.Equal(t, machine, inv.Simulated())
			require.Regexp(t, `^\d+\.\d+$`, found.CUDAVersion)
			driver := strings.Split(found.DriverVersion, ".")
			cuda := strings.Split(found.CUDAVersion, ".")
			require.Empty(t, cmp.Diff(map[string]string{
				"nvidia.com/gpu.count": "8", "nvidia.com/gpu.product": want.product, "nvidia.com/gpu.memory": want.mib,
				"nvidia.com/gpu.family": want.family, "nvidia.com/gpu.compute.major": want.compute, "nvidia.com/gpu.compute.minor": "0",
				"nvidia.com/mig.capable": "true", "nvidia.com/mig.strategy": "mixed",
				"nvidia.com/cuda.driver-version.full": found.DriverVersion, "nvidia.com/cuda.driver-version.major": driver[0],
				"nvidia.com/cuda.driver-version.minor": driver[1], "nvidia.com/cuda.driver-version.revision": driver[2],
				"nvidia.com/cuda.runtime-version.full": found.CUDAVersion, "nvidia.com/cuda.runtime-version.major": cuda[0],
				"nvidia.com/cuda.runtime-version.minor": cuda[1],
				contract.SimulatedLabel:                 "true",
			}, inv.NodeLabels()))
			form := regexp.MustCompile(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
			for i, uuid := range found.UUIDs() {
				require.Regexp(t, form, uuid)
				require.Equal(t, i, found.Cards[i].Index)
				require.True(t, found.Cards[i].ECC)
				require.Equal(t, "ainode.dev/simulated-gpu="+uuid, inv.CDIDevice(uuid))
			}
			require.Empty(t, inv.CDIDevice("GPU-no"))
			all := found.UUIDs()
			require.Equal(t, topology.Link{NVLinks: want.nvLinks, Path: topology.Node}, found.Links.Between(all[0], all[3]))
			require.Equal(t, topology.Link{NVLinks: want.nvLinks, Path: topology.System}, found.Links.Between(all[3], all[4]))
		})
	}
}

func TestUUIDsAreTheMachinesOwn(t *testing.T) {
	t.Parallel()
	first := openOn(t, "m1", "dgxh200", t.TempDir()).Found().UUIDs()
	require.Equal(t, first, openOn(t, "m1", "dgxh200", t.TempDir()).Found().UUIDs(), "pods hold their cards over a restart of the agent")
	seen := map[string]bool{}
	for _, uuids := range [][]string{first, openOn(t, "m2", "dgxh200", t.TempDir()).Found().UUIDs(), openOn(t, "m1", "dgxh100", t.TempDir()).Found().UUIDs()} {
		for _, uuid := range uuids {
			require.False(t, seen[uuid], "%s twice", uuid)
			seen[uuid] = true
		}
	}
}

// What the runtime does with the spec: it reads it and edits a container.
func TestSimulatedSpecGivesExactlyTheCards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inv := openOn(t, "m1", "dgxh200", dir)
	openOn(t, "m1", "dgxh200", dir) // a restart writes it again
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	require.NoError(t, err)
	require.Empty(t, cache.GetErrors())
	require.Len(t, cache.ListDevices(), 8)

	container := &oci.Spec{}
	missing, err := cache.InjectDevices(container, inv.CDIDevice(inv.Found().UUIDs()[2]), inv.CDIDevice(inv.Found().UUIDs()[5]))
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Equal(t, []string{"AINODE_SIMULATED_GPUS=dgxh200"}, container.Process.Env)
	mounts := map[string]string{}
	for _, m := range container.Mounts {
		require.Contains(t, m.Options, "ro")
		mounts[m.Destination] = m.Source
	}
	require.Len(t, mounts, 3)
	require.Contains(t, mounts, "/usr/bin/nvidia-smi")
	for _, i := range []int{2, 5} {
		file := mounts[filepath.Join(simulated.Dir, inv.Found().UUIDs()[i]+".json")]
		require.FileExists(t, file)
	}
	cards, err := simulated.Read(filepath.Join(dir, "simulated"))
	require.NoError(t, err)
	require.Len(t, cards, 8)
	require.Equal(t, simulated.Card{
		UUID: inv.Found().UUIDs()[0], Product: "NVIDIA H200 141GB HBM3e", MemoryBytes: 144384 << 20, ComputeCapability: "9.0",
		Machine: "dgxh200", DriverVersion: inv.Found().DriverVersion, CUDAVersion: inv.Found().CUDAVersion,
	}, cards[0])
}

func TestSimulationThatCanNotBe(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, nil, 0o600))
	for want, o := range map[string]Options{
		`machine "cray" can't be simulated; choose one of dgxa100, dgxb200, dgxh100, dgxh200`: {Simulate: "cray"},
		"the machine's id is missing":   {Simulate: "dgxh200"},
		"find the simulated nvidia-smi": {Simulate: "dgxh200", MachineID: "m", NvidiaSMI: "/no/such"},
		"is not a program":              {Simulate: "dgxh200", MachineID: "m", NvidiaSMI: text},
		"the directory of CDI specs":    {Simulate: "dgxh200", MachineID: "m", NvidiaSMI: program(t), CDIDir: "cdi"},
	} {
		if o.CDIDir == "" {
			o.CDIDir = t.TempDir()
		}
		_, err := Open(o)
		require.ErrorContains(t, err, want)
	}
}

// driver is a library that answers as told.
func driver(init nvml.Return, count int) nvml.Interface {
	return &mock.Interface{
		InitFunc: func() nvml.Return { return init },
		ExtensionsFunc: func() nvml.ExtendedInterface {
			return &mock.ExtendedInterface{LookupSymbolFunc: func(string) error { return nil }}
		},
		ShutdownFunc:                   func() nvml.Return { return nvml.SUCCESS },
		DeviceGetCountFunc:             func() (int, nvml.Return) { return count, nvml.SUCCESS },
		SystemGetDriverVersionFunc:     func() (string, nvml.Return) { return "1", nvml.SUCCESS },
		SystemGetCudaDriverVersionFunc: func() (int, nvml.Return) { return 12040, nvml.SUCCESS },
	}
}

func TestMachineWithoutACard(t *testing.T) {
	t.Parallel()
	for name, lib := range map[string]nvml.Interface{
		"no driver":         driver(nvml.ERROR_LIBRARY_NOT_FOUND, 0),
		"driver, no card":   driver(nvml.SUCCESS, 0),
		"driver not loaded": driver(nvml.ERROR_DRIVER_NOT_LOADED, 0),
		"no permission":     driver(nvml.ERROR_NO_PERMISSION, 8),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(Options{NVML: lib, CDIDir: t.TempDir()})
			require.ErrorIs(t, err, ErrNone)
			require.ErrorContains(t, err, "install NVIDIA's driver")
			require.ErrorContains(t, err, "--simulate-gpus dgxh200")

			inv, err := Open(Options{NVML: lib, CDIDir: t.TempDir(), AllowNone: true})
			require.NoError(t, err)
			require.Empty(t, inv.Found().Cards)
			require.Contains(t, inv.Found().Cause, "no usable NVIDIA GPU", "not a silent zero")
			require.Empty(t, inv.NodeLabels())
		})
	}
}

// A driver that lacks a function of NVML's is too old, and told so: to call that function would
// end the agent.
func TestADriverThatIsTooOld(t *testing.T) {
	t.Parallel()
	for _, function := range called {
		s := dgxh100.New()
		complete(s, "")
		sessions := 0
		s.InitFunc = func() nvml.Return { sessions++; return nvml.SUCCESS }
		s.ShutdownFunc = func() nvml.Return { sessions--; return nvml.SUCCESS }
		s.LookupSymbolFunc = func(name string) error {
			if name == function {
				return errors.New("undefined symbol")
			}
			return nil
		}
		s.DeviceGetCountFunc = func() (int, nvml.Return) { t.Error("it is asked for cards"); return 0, nvml.SUCCESS }
		m, err := Open(Options{NVML: s, CDIDir: t.TempDir(), AllowNone: true})
		require.NoError(t, err)
		require.Contains(t, m.Found().Cause, "the driver is too old: its NVML lacks "+function)
		require.Zero(t, sessions)
		_, err = Look(s)
		require.ErrorContains(t, err, "R510 or newer")
		require.Zero(t, sessions)
	}
}

// driverRoot is a root below which a driver for eight cards lies.
func driverRoot(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("makes device nodes, as root; left out with -short")
	}
	root := t.TempDir()
	for _, library := range []string{"libcuda.so.550.54.15", "libnvidia-ml.so.550.54.15"} {
		path := filepath.Join(root, "usr/lib/x86_64-linux-gnu", library)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(root, "dev"), 0o755))
	for minor := range 8 {
		path := filepath.Join(root, "dev", "nvidia"+strconv.Itoa(minor))
		require.NoError(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(195, uint32(minor)))))
	}
	return root
}

// The toolkit describes the cards of a driver that lies below a root of its own.
func TestSpecOfRealCards(t *testing.T) {
	t.Parallel()
	root := driverRoot(t)
	lib := dgxh100.New()
	complete(lib, "")
	dir := t.TempDir()
	inv, err := Open(Options{NVML: lib, CDIDir: dir, DriverRoot: root, CDIHook: "/usr/bin/nvidia-cdi-hook"})
	require.NoError(t, err)
	require.Empty(t, inv.Simulated())
	require.NotContains(t, inv.NodeLabels(), contract.SimulatedLabel)

	// NVIDIA's own service describes the same cards there, by the same UUIDs.
	theirs, err := os.ReadFile(SpecPath(dir, false))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nvidia.yaml"), []byte(strings.Replace(string(theirs), "kind: ainode.dev/gpu", "kind: nvidia.com/gpu", 1)), 0o600))
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	require.NoError(t, err)
	require.Empty(t, cache.GetErrors(), "they do not stand in each other's way")
	require.NotNil(t, cache.GetDevice("nvidia.com/gpu="+inv.Found().UUIDs()[0]))
	for i, uuid := range inv.Found().UUIDs() {
		require.Equal(t, "ainode.dev/gpu="+uuid, inv.CDIDevice(uuid))
		device := cache.GetDevice(inv.CDIDevice(uuid))
		require.NotNil(t, device, uuid)
		require.Len(t, device.ContainerEdits.DeviceNodes, 1)
		require.Equal(t, "/dev/nvidia"+strconv.Itoa(i), device.ContainerEdits.DeviceNodes[0].Path)
		require.Empty(t, device.ContainerEdits.Hooks, "hooks that an older toolkit does not know must not stand in the way")
	}
}
