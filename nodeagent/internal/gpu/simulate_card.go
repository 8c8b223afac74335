package gpu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

// What a simulated card tells of itself, whatever is done with it: it does nothing.
const (
	simulatedTemperature = 30     // °C
	simulatedPower       = 70_000 // mW
	simulatedClock       = 345    // MHz
	// simulatedSocket is how many cards share a CPU socket, as on a DGX.
	simulatedSocket = 4
)

// simulatedNVLinks of each card into the switches, by architecture: NVLink 3, 4 and
// 5 of NVIDIA's data sheets for A100, H100/H200 and B200.
var simulatedNVLinks = map[nvml.DeviceArchitecture]int{
	nvml.DEVICE_ARCH_AMPERE: 12, nvml.DEVICE_ARCH_HOPPER: 18, nvml.DEVICE_ARCH_BLACKWELL: 18,
}

// complete adds to a mock what it leaves out: it panics where it is asked for more
// than it was made for. faults is a file in which people write what befalls cards.
// What is returned cuts the cards.
func complete(s *server.Server, faults string) *cutter {
	for _, device := range s.Devices {
		if d, ok := device.(*server.Device); ok {
			completeCard(d)
		}
	}
	c := cuttable(s)
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return faultsOf(c, faults), nvml.SUCCESS
	}
	return c
}

func completeCard(d *server.Device) {
	d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) {
		pci := nvml.PciInfo{PciDeviceId: d.Config.PciDeviceId, Bus: uint32(d.Index)}
		for i, c := range []byte(d.PciBusID) {
			pci.BusId[i] = int8(c)
		}
		return pci, nvml.SUCCESS
	}
	d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
		if link < simulatedNVLinks[d.Config.Architecture] {
			return nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		return nvml.FEATURE_DISABLED, nvml.ERROR_INVALID_ARGUMENT
	}
	d.GetNvLinkRemoteDeviceTypeFunc = func(int) (nvml.IntNvLinkDeviceType, nvml.Return) {
		return nvml.NVLINK_DEVICE_TYPE_SWITCH, nvml.SUCCESS
	}
	d.GetTopologyCommonAncestorFunc = func(other nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
		if i, ret := other.GetIndex(); ret != nvml.SUCCESS || i/simulatedSocket != d.Index/simulatedSocket {
			return nvml.TOPOLOGY_SYSTEM, ret
		}
		return nvml.TOPOLOGY_NODE, nvml.SUCCESS
	}
	d.GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return nvml.COMPUTEMODE_DEFAULT, nvml.SUCCESS }
	d.GetEccModeFunc = func() (nvml.EnableState, nvml.EnableState, nvml.Return) {
		return nvml.FEATURE_ENABLED, nvml.FEATURE_ENABLED, nvml.SUCCESS
	}

	d.GetClockInfoFunc = func(nvml.ClockType) (uint32, nvml.Return) { return simulatedClock, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return simulatedTemperature, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return simulatedPower, nvml.SUCCESS }
	d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetPcieReplayCounterFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	d.GetEncoderUtilizationFunc = func() (uint32, uint32, nvml.Return) { return 0, 0, nvml.SUCCESS }
	d.GetDecoderUtilizationFunc = func() (uint32, uint32, nvml.Return) { return 0, 0, nvml.SUCCESS }
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{Total: d.MemoryInfo.Total, Free: d.MemoryInfo.Total}, nvml.SUCCESS
	}
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, nvml.SUCCESS }
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, nvml.SUCCESS }
	d.GetFieldValuesFunc = func(values []nvml.FieldValue) nvml.Return {
		for i := range values {
			values[i].NvmlReturn = uint32(nvml.ERROR_NOT_SUPPORTED)
			if values[i].FieldId == nvml.FI_DEV_MEMORY_TEMP {
				values[i].NvmlReturn, values[i].ValueType = uint32(nvml.SUCCESS), uint32(nvml.VALUE_TYPE_UNSIGNED_INT)
				binary.LittleEndian.PutUint32(values[i].Value[:], simulatedTemperature)
			}
		}
		return nvml.SUCCESS
	}
	d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeAll, nvml.SUCCESS }
	d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
}

// faultsFile, in the directory of simulated cards, is where people write what befalls
// one: a line "UUID XID", for example "GPU-… 79" or "MIG-… 13", or a line "mig LAYOUT",
// as --simulate-mig has it, which cuts all cards anew.
const faultsFile = "faults"

// faultsOf is an event set that takes its events from the file, and empties it.
func faultsOf(c *cutter, path string) nvml.EventSet {
	var waiting []nvml.EventData
	take := func() {
		raw, err := os.ReadFile(path)
		if err != nil || len(raw) == 0 || os.Truncate(path, 0) != nil {
			return // nearly always
		}
		for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
			if event, ok := c.befall(strings.Cut(strings.TrimSpace(lines.Text()), " ")); ok {
				waiting = append(waiting, event)
			}
		}
	}
	return &mock.EventSet{
		FreeFunc: func() nvml.Return { return nvml.SUCCESS },
		WaitFunc: func(milliseconds uint32) (nvml.EventData, nvml.Return) {
			const look = time.Second
			for left := time.Duration(milliseconds) * time.Millisecond; ; left -= look {
				if take(); len(waiting) > 0 {
					first := waiting[0]
					waiting = waiting[1:]
					return first, nvml.SUCCESS
				}
				if left <= 0 {
					return nvml.EventData{}, nvml.ERROR_TIMEOUT
				}
				time.Sleep(look)
			}
		},
	}
}

// befall is the event that a line makes; ok is false for a line that makes none.
func (c *cutter) befall(whom, what string, _ bool) (event nvml.EventData, ok bool) {
	event = nvml.EventData{EventType: nvml.EventTypeXidCriticalError, GpuInstanceId: noInstance, ComputeInstanceId: noInstance}
	if whom == "mig" {
		layout, err := simulated.ParseLayout(what)
		if err == nil {
			err = c.cut(layout)
		}
		if err != nil {
			klog.Background().Error(err, "The simulated cards stay as they are cut")
			return event, false
		}
		event.Device, event.EventType = c.s.Devices[0], nvml.EventMigConfigChange
		return event, true
	}
	device, ret := c.s.DeviceGetHandleByUUID(whom)
	if ret != nvml.SUCCESS {
		return event, false
	}
	if slice, _ := device.IsMigDeviceHandle(); slice { // as a driver tells it: by the card, and the instances' ids
		gi, _ := device.GetGpuInstanceId()
		ci, _ := device.GetComputeInstanceId()
		event.GpuInstanceId, event.ComputeInstanceId = uint32(gi), uint32(ci)
		card, _ := device.GetDeviceHandleFromMigDeviceHandle()
		whom, _ = card.GetUUID()
		device, _ = c.s.DeviceGetHandleByUUID(whom)
	}
	event.Device = device
	var err error
	event.EventData, err = strconv.ParseUint(what, 10, 64)
	return event, err == nil
}
