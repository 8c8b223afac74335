package gpu

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"
)

// mocked is a machine of a mock that the test may change while it runs.
func mocked(t *testing.T, s *server.Server) *Machine {
	t.Helper()
	m, _ := mockedMIG(t, s)
	return m
}

// mockedMIG is mocked, and what cuts its cards.
func mockedMIG(t *testing.T, s *server.Server) (*Machine, *cutter) {
	t.Helper()
	c := complete(s, filepath.Join(t.TempDir(), faultsFile))
	m, err := Open(Options{
		NVML: s, Simulate: "dgxh200", MachineID: "m1",
		CDIDir: t.TempDir(), NvidiaSMI: program(t), AllowNone: true,
		listPatience: time.Minute, readPatience: time.Minute,
	})
	require.NoError(t, err)
	return m, c
}

func card(s *server.Server, i int) *server.Device { return s.Devices[i].(*server.Device) }

// What is wrong with one card does not hide the others.
func TestABrokenCardIsToldAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breakIt func(*server.Server)
		want    string
	}{
		"a slice can't be read": {func(s *server.Server) {
			card(s, 3).GetMigModeFunc = func() (int, int, nvml.Return) {
				return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
			}
			card(s, 3).GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
		}, "read its MIG slices"},
		"no process may use it": {func(s *server.Server) {
			card(s, 3).GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return nvml.COMPUTEMODE_PROHIBITED, nvml.SUCCESS }
		}, "nvidia-smi -i 3 -c DEFAULT"},
		"lost": {func(s *server.Server) {
			card(s, 3).GetNameFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
		}, "ERROR_GPU_IS_LOST"},
		"it does not even open": {func(s *server.Server) {
			open := s.DeviceGetHandleByIndexFunc
			s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
				if i == 3 {
					return nil, nvml.ERROR_NO_PERMISSION
				}
				return open(i)
			}
		}, "ERROR_NO_PERMISSION"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dgxh100.New()
			m := mocked(t, s)
			c.breakIt(s)
			require.NoError(t, m.Refresh(t.Context()))
			found := m.Found()
			require.Len(t, found.Cards, 7)
			require.Len(t, found.Broken, 1)
			require.Equal(t, 3, found.Broken[0].Index)
			require.Contains(t, found.Broken[0].Cause, c.want)
			require.Equal(t, "7", m.NodeLabels()["nvidia.com/gpu.count"])
		})
	}
}

// A card that serves one process at a time serves a pod of one process.
func TestACardInExclusiveModeGoesOn(t *testing.T) {
	t.Parallel()
	for _, mode := range []nvml.ComputeMode{nvml.COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.COMPUTEMODE_EXCLUSIVE_THREAD} {
		s := dgxh100.New()
		m := mocked(t, s)
		card(s, 3).GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return mode, nvml.SUCCESS }
		require.NoError(t, m.Refresh(t.Context()))
		require.Len(t, m.Found().Devices(), 8)
		for i, c := range m.Found().Cards {
			require.Equal(t, i == 3, c.Exclusive)
		}
	}
}

func TestCardsComeAndGoAndTheDriverIsReplaced(t *testing.T) {
	t.Parallel()
	s := dgxh200.New()
	complete(s, "")
	all := s.Devices
	s.Devices = all[:6]
	m := mocked(t, s)
	require.Len(t, m.Found().Cards, 6)
	s.Devices, s.DriverVersion = all, "600.1.2"
	sessions := 0
	s.InitFunc = func() nvml.Return { sessions++; return nvml.SUCCESS }
	count, answers := s.DeviceGetCountFunc, 0
	s.DeviceGetCountFunc = func() (int, nvml.Return) {
		if answers++; answers == 1 {
			return 0, nvml.ERROR_UNINITIALIZED // as after the driver was taken away
		}
		return count()
	}
	require.NoError(t, m.Refresh(t.Context()))
	require.Equal(t, 1, sessions, "a new session sees the new driver")
	require.Len(t, m.Found().Cards, 8)
	require.Equal(t, "600", m.NodeLabels()["nvidia.com/cuda.driver-version.major"])
	require.Equal(t, m.kind+"="+m.Found().UUIDs()[7], m.CDIDevice(m.Found().UUIDs()[7]))
	spec, err := os.ReadFile(filepath.Join(m.o.CDIDir, "ainode.dev-simulated-gpu.json"))
	require.NoError(t, err)
	require.Contains(t, string(spec), m.Found().UUIDs()[7], "the CDI spec was written anew")
	long := time.Unix(1, 0)
	require.NoError(t, os.Chtimes(filepath.Join(m.o.CDIDir, "ainode.dev-simulated-gpu.json"), long, long))
	require.NoError(t, m.Refresh(t.Context()))
	now, err := os.Stat(filepath.Join(m.o.CDIDir, "ainode.dev-simulated-gpu.json"))
	require.NoError(t, err)
	require.Equal(t, long, now.ModTime(), "and is not while nothing changes")

	s.InitFunc = func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNINITIALIZED }
	require.ErrorIs(t, m.Refresh(t.Context()), ErrNone)
	require.Empty(t, m.Found().Cards)
	require.Contains(t, m.Found().Cause, "ERROR_DRIVER_NOT_LOADED")
}

// silence makes a function that returns when the test ends.
func silence(t *testing.T) func() {
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func() { <-end }
}

func TestADriverThatNeverAnswersHoldsNobody(t *testing.T) {
	t.Parallel()
	hang, began := silence(t), make(chan struct{}, 8)
	lib := driver(nvml.SUCCESS, 8).(*mock.Interface)
	lib.DeviceGetCountFunc = func() (int, nvml.Return) { began <- struct{}{}; hang(); return 0, nvml.ERROR_UNKNOWN }
	m, err := Open(Options{NVML: lib, CDIDir: t.TempDir(), AllowNone: true, listPatience: 20 * time.Millisecond})
	require.NoError(t, err, "the node runs pods without cards meanwhile")
	require.Contains(t, m.Found().Cause, ErrSilent.Error())
	for range 3 {
		require.ErrorIs(t, m.Refresh(t.Context()), ErrSilent)
	}
	require.Eventually(t, func() bool { return len(began) > 0 }, time.Minute, time.Millisecond)
	require.Len(t, began, 1, "one call hangs, no more are made")
	_, err = Open(Options{NVML: lib, CDIDir: t.TempDir(), listPatience: 20 * time.Millisecond})
	require.ErrorIs(t, err, ErrSilent)
}

func TestASilentCardHoldsNoOther(t *testing.T) {
	t.Parallel()
	s := dgxh200.New()
	m := mocked(t, s)
	m.o.readPatience = 20 * time.Millisecond
	hang := silence(t)
	card(s, 2).GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { hang(); return 0, nvml.ERROR_UNKNOWN }
	uuids := m.Found().UUIDs()
	_, err := m.Read(t.Context(), uuids[2])
	require.ErrorIs(t, err, ErrSilent)
	m.o.readPatience = time.Minute
	for i, uuid := range uuids {
		if i == 2 {
			continue
		}
		reading, err := m.Read(t.Context(), uuid)
		require.NoError(t, err)
		require.InDelta(t, 30, reading["DCGM_FI_DEV_GPU_TEMP"], 0)
		require.InDelta(t, 30, reading["DCGM_FI_DEV_MEMORY_TEMP"], 0)
		require.InDelta(t, 70, reading["DCGM_FI_DEV_POWER_USAGE"], 0)
		require.InDelta(t, 144384, reading["DCGM_FI_DEV_FB_FREE"], 0)
		require.NotContains(t, reading, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "what a card does not know is left out")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Read(ctx, uuids[2])
	require.ErrorIs(t, err, context.Canceled)
}

func TestALostCardIsNoReading(t *testing.T) {
	t.Parallel()
	s := dgxh200.New()
	m := mocked(t, s)
	card(s, 1).GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
	_, err := m.Read(t.Context(), card(s, 1).UUID)
	require.ErrorContains(t, err, "ERROR_GPU_IS_LOST")
	_, err = m.Read(t.Context(), "GPU-no")
	require.ErrorContains(t, err, "open it")
}

// People can try on a simulated machine what happens when a card fails.
func TestFaultsOfSimulatedCards(t *testing.T) {
	t.Parallel()
	m := openOn(t, "m1", "dgxh200", t.TempDir())
	uuid := m.Found().UUIDs()[5]
	require.NoError(t, os.WriteFile(filepath.Join(m.o.StateDir, faultsFile), []byte("junk\n"+uuid+" 79\nGPU-no 48\n"+uuid+" 13\n"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan Event, 4)
	ended := make(chan error, 1)
	go func() { ended <- m.Watch(ctx, func() {}, func(e Event) { events <- e }) }()
	require.Equal(t, Event{UUID: uuid, Kind: XIDError, XID: 79}, <-events)
	require.Equal(t, Event{UUID: uuid, Kind: XIDError, XID: 13}, <-events)
	cancel()
	require.NoError(t, <-ended)
	require.Empty(t, events)
}

func TestEventsThatEnd(t *testing.T) {
	t.Parallel()
	s := dgxh200.New()
	m := mocked(t, s)
	answers := []struct {
		data nvml.EventData
		ret  nvml.Return
	}{
		{ret: nvml.ERROR_TIMEOUT},
		{data: nvml.EventData{EventType: nvml.EventTypeXidCriticalError, EventData: 79}}, // of some card
		{data: nvml.EventData{Device: s.Devices[0], EventType: nvml.EventTypeDoubleBitEccError}},
		{data: nvml.EventData{Device: s.Devices[0], EventType: nvml.EventTypePState}},
		{ret: nvml.ERROR_GPU_IS_LOST},
	}
	freed := false
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return &mock.EventSet{
			WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
				next := answers[0]
				answers = answers[1:]
				return next.data, next.ret
			},
			FreeFunc: func() nvml.Return { freed = true; return nvml.SUCCESS },
		}, nvml.SUCCESS
	}
	var seen []Event
	err := m.Watch(t.Context(), func() {}, func(e Event) { seen = append(seen, e) })
	require.ErrorContains(t, err, "ERROR_GPU_IS_LOST")
	require.Equal(t, []Event{{Kind: XIDError, XID: 79}, {UUID: card(s, 0).UUID, Kind: DoubleBitError}}, seen)
	require.True(t, freed)

	// A wait that never returns holds one goroutine, and is told.
	hang := silence(t)
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return &mock.EventSet{
			WaitFunc: func(uint32) (nvml.EventData, nvml.Return) { hang(); return nvml.EventData{}, nvml.ERROR_UNKNOWN },
			FreeFunc: func() nvml.Return { return nvml.SUCCESS },
		}, nvml.SUCCESS
	}
	m.o.waitPatience = 20 * time.Millisecond
	require.ErrorIs(t, m.Watch(t.Context(), func() {}, nil), ErrSilent)

	for i := range s.Devices {
		card(s, i).RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }
	}
	require.ErrorContains(t, m.Watch(t.Context(), nil, nil), "none of the cards tells any")
}
