package gpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/uuid"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

// computeSlices is how many compute slices a card that can be cut has.
const computeSlices = 7

// cutter cuts the cards of a mock, which knows GPU instances and no MIG devices.
type cutter struct {
	s *server.Server

	mu sync.Mutex
	// slices of the cards in MIG mode, by the cards' index.
	slices map[int][]*mock.Device
}

// cuttable makes the mock's cards ones that can be cut; none is.
func cuttable(s *server.Server) *cutter {
	c := &cutter{s: s, slices: map[int][]*mock.Device{}}
	for _, each := range s.Devices {
		d, ok := each.(*server.Device)
		if !ok {
			continue
		}
		d.IsMigDeviceHandleFunc = func() (bool, nvml.Return) { return false, nvml.SUCCESS }
		d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return computeSlices, nvml.SUCCESS }
		d.GetMigModeFunc = func() (int, int, nvml.Return) {
			mode := nvml.DEVICE_MIG_DISABLE
			if _, cut := c.of(d.Index); cut {
				mode = nvml.DEVICE_MIG_ENABLE
			}
			return mode, mode, nvml.SUCCESS
		}
		inexact := d.GetGpuInstanceProfileInfoFunc
		d.GetGpuInstanceProfileInfoFunc = func(profile int) (nvml.GpuInstanceProfileInfo, nvml.Return) {
			info, ret := inexact(profile)
			info.MemorySizeMB = eighths(info.MemorySizeMB, d.Config.MemoryMB)
			return info, ret
		}
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
			if _, cut := c.of(d.Index); cut { // as a driver has it in MIG mode
				return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
			}
			return nvml.Utilization{}, nvml.SUCCESS
		}
		d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
			if its, _ := c.of(d.Index); i < len(its) {
				return its[i], nvml.SUCCESS
			}
			return nil, nvml.ERROR_NOT_FOUND
		}
	}
	whole := s.DeviceGetHandleByUUIDFunc
	s.DeviceGetHandleByUUIDFunc = func(id string) (nvml.Device, nvml.Return) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, its := range c.slices {
			for _, slice := range its {
				if own, _ := slice.GetUUID(); own == id {
					return slice, nvml.SUCCESS
				}
			}
		}
		return whole(id)
	}
	return c
}

// eighths is memory in whole eighths of a card, as cards are cut. The mocks of H200 and
// B200 have it some per cent too large, and by that their profiles wrong names.
func eighths(part, whole uint64) uint64 { return (part*8 + whole/2) / whole * whole / 8 }

func (c *cutter) of(index int) ([]*mock.Device, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	its, cut := c.slices[index]
	return its, cut
}

// cut gives the cards another layout; those that it does not name are whole.
func (c *cutter) cut(layout simulated.Layout) error {
	all := map[int][]*mock.Device{}
	for _, index := range slices.Sorted(maps.Keys(layout)) {
		if index >= len(c.s.Devices) {
			return fmt.Errorf("cut card %d: the machine has %d", index, len(c.s.Devices))
		}
		d, ok := c.s.Devices[index].(*server.Device)
		if !ok {
			return fmt.Errorf("cut card %d: it is none of the mock's", index)
		}
		its, err := c.cutCard(d, layout[index])
		if err != nil {
			return fmt.Errorf("cut card %d: %w", index, err)
		}
		all[index] = its
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slices = all
	return nil
}

// cutCard makes slices of the profiles, in that order, each at the first place that is
// left for its kind.
func (c *cutter) cutCard(d *server.Device, profiles []string) ([]*mock.Device, error) {
	card, err := device.New(c.s).NewDevice(d)
	if err != nil {
		return nil, err
	}
	known, err := card.GetMigProfiles()
	if err != nil {
		return nil, err
	}
	var made []*mock.Device
	var taken [8]bool
	compute, count := 0, map[int]int{}
	for id, name := range profiles {
		i := slices.IndexFunc(known, func(p device.MigProfile) bool { return p.Matches(name) })
		if i < 0 {
			return nil, fmt.Errorf("%q is none of its profiles: %s", name, names(known))
		}
		profile := known[i].GetInfo()
		kind, _ := d.GetGpuInstanceProfileInfo(profile.GIProfileID)
		place := slices.IndexFunc(d.Config.MIGProfiles.GpuInstancePlacements[profile.GIProfileID], func(p nvml.GpuInstancePlacement) bool {
			return !slices.Contains(taken[p.Start:p.Start+p.Size], true)
		})
		compute += profile.G
		if count[profile.GIProfileID]++; place < 0 || compute > computeSlices || count[profile.GIProfileID] > int(kind.InstanceCount) {
			return nil, fmt.Errorf("%v does not fit on it: no place is left for the %s", profiles, name)
		}
		p := d.Config.MIGProfiles.GpuInstancePlacements[profile.GIProfileID][place]
		for at := p.Start; at < p.Start+p.Size; at++ {
			taken[at] = true
		}
		slice, err := newSlice(d, kind, profile, id+1)
		if err != nil {
			return nil, err
		}
		made = append(made, slice)
	}
	return made, nil
}

// names of the profiles, each once.
func names(profiles []device.MigProfile) string {
	var all []string
	for _, p := range profiles {
		all = append(all, p.String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// newSlice is a slice as its handle tells of it: it has memory of its own, and for
// what only the whole card knows (power, temperature, use) it answers as a driver does.
func newSlice(d *server.Device, kind nvml.GpuInstanceProfileInfo, profile device.MigProfileInfo, id int) (*mock.Device, error) {
	gi := server.NewGpuInstanceFromInfo(nvml.GpuInstanceInfo{Device: d, Id: uint32(id), ProfileId: kind.Id}, d.Config.MIGProfiles)
	part, ret := gi.GetComputeInstanceProfileInfo(profile.CIProfileID, profile.CIEngProfileID)
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%s: %w", profile, ret)
	}
	ci := server.NewComputeInstanceFromInfo(nvml.ComputeInstanceInfo{Device: d, GpuInstance: gi, ProfileId: part.Id})
	gi.GetComputeInstanceByIdFunc = func(int) (nvml.ComputeInstance, nvml.Return) { return ci, nvml.SUCCESS }
	parent := &mock.Device{
		GetMemoryInfoFunc: d.GetMemoryInfoFunc, GetGpuInstanceProfileInfoFunc: d.GetGpuInstanceProfileInfoFunc, GetUUIDFunc: d.GetUUIDFunc,
		GetIndexFunc: d.GetIndexFunc, GetMinorNumberFunc: d.GetMinorNumberFunc, GetPciInfoFunc: d.GetPciInfoFunc,
		GetGpuInstanceByIdFunc: func(int) (nvml.GpuInstance, nvml.Return) { return gi, nvml.SUCCESS },
	}
	own := "MIG-" + uuid.NewSHA1(simulatedNamespace, []byte(d.UUID+"/"+strconv.Itoa(id)+"/"+profile.String())).String()
	slice := &mock.Device{
		IsMigDeviceHandleFunc:                  func() (bool, nvml.Return) { return true, nvml.SUCCESS },
		GetUUIDFunc:                            func() (string, nvml.Return) { return own, nvml.SUCCESS },
		GetIndexFunc:                           func() (int, nvml.Return) { return id - 1, nvml.SUCCESS },
		GetGpuInstanceIdFunc:                   func() (int, nvml.Return) { return id, nvml.SUCCESS },
		GetComputeInstanceIdFunc:               func() (int, nvml.Return) { return 0, nvml.SUCCESS },
		GetDeviceHandleFromMigDeviceHandleFunc: func() (nvml.Device, nvml.Return) { return parent, nvml.SUCCESS },
		GetAttributesFunc: func() (nvml.DeviceAttributes, nvml.Return) {
			return nvml.DeviceAttributes{
				MultiprocessorCount: part.MultiprocessorCount, SharedCopyEngineCount: kind.CopyEngineCount,
				SharedDecoderCount: kind.DecoderCount, SharedEncoderCount: kind.EncoderCount, SharedJpegCount: kind.JpegCount,
				SharedOfaCount: kind.OfaCount, GpuInstanceSliceCount: kind.SliceCount, ComputeInstanceSliceCount: part.SliceCount,
				MemorySizeMB: kind.MemorySizeMB,
			}, nvml.SUCCESS
		},
		GetMemoryInfo_v2Func: func() (nvml.Memory_v2, nvml.Return) {
			return nvml.Memory_v2{Total: kind.MemorySizeMB << 20, Free: kind.MemorySizeMB << 20}, nvml.SUCCESS
		},
	}
	silent(slice)
	return slice, nil
}

// silent makes a slice's handle not know what is measured of whole cards.
func silent(d *mock.Device) {
	const no = nvml.ERROR_NOT_SUPPORTED
	d.GetClockInfoFunc = func(nvml.ClockType) (uint32, nvml.Return) { return 0, no }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, no }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, no }
	d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 0, no }
	d.GetPcieReplayCounterFunc = func() (int, nvml.Return) { return 0, no }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, no }
	d.GetEncoderUtilizationFunc = func() (uint32, uint32, nvml.Return) { return 0, 0, no }
	d.GetDecoderUtilizationFunc = func() (uint32, uint32, nvml.Return) { return 0, 0, no }
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, no }
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, no }
	d.GetFieldValuesFunc = func([]nvml.FieldValue) nvml.Return { return no }
}
