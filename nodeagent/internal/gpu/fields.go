package gpu

import (
	"encoding/binary"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Field is one thing that is measured of a card.
type Field struct {
	// Name is dcgm-exporter's (etc/default-counters.csv), since people have dashboards
	// of it. What only DCGM itself can measure (DCGM_FI_PROF_…) is not
	// here, and nothing is passed off for it.
	Name, Help string
	// Counter grows until the driver is loaded again; others go up and down.
	Counter bool
	read    func(nvml.Device) (float64, nvml.Return)
}

// The names by which others in the agent ask for a field.
const (
	FieldUtilization = "DCGM_FI_DEV_GPU_UTIL"
	FieldMemoryUsed  = "DCGM_FI_DEV_FB_USED"
)

// Fields are all that is measured. A card that does not know one is shown without.
var Fields = []Field{
	{"DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", false, clock(nvml.CLOCK_SM)},
	{"DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", false, clock(nvml.CLOCK_MEM)},
	{"DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", false, fieldValue(nvml.FI_DEV_MEMORY_TEMP)},
	{"DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", false, func(d nvml.Device) (float64, nvml.Return) {
		v, ret := d.GetTemperature(nvml.TEMPERATURE_GPU)
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", false, func(d nvml.Device) (float64, nvml.Return) {
		milliwatts, ret := d.GetPowerUsage()
		return float64(milliwatts) / 1000, ret
	}},
	{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", true, func(d nvml.Device) (float64, nvml.Return) {
		v, ret := d.GetTotalEnergyConsumption()
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", true, func(d nvml.Device) (float64, nvml.Return) {
		v, ret := d.GetPcieReplayCounter()
		return float64(v), ret
	}},
	{FieldUtilization, "GPU utilization (in %).", false, func(d nvml.Device) (float64, nvml.Return) {
		u, ret := d.GetUtilizationRates()
		return float64(u.Gpu), ret
	}},
	{"DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", false, func(d nvml.Device) (float64, nvml.Return) {
		u, ret := d.GetUtilizationRates()
		return float64(u.Memory), ret
	}},
	{"DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).", false, func(d nvml.Device) (float64, nvml.Return) {
		v, _, ret := d.GetEncoderUtilization()
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).", false, func(d nvml.Device) (float64, nvml.Return) {
		v, _, ret := d.GetDecoderUtilization()
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", false, memory(func(m nvml.Memory_v2) uint64 { return m.Free })},
	{FieldMemoryUsed, "Framebuffer memory used (in MiB).", false, memory(func(m nvml.Memory_v2) uint64 { return m.Used })},
	{"DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).", false, memory(func(m nvml.Memory_v2) uint64 { return m.Reserved })},
	{"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", true, ecc(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", true, ecc(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)},
	{"DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors.", true, ecc(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.AGGREGATE_ECC)},
	{"DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors.", true, ecc(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.AGGREGATE_ECC)},
	{"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors.", true, func(d nvml.Device) (float64, nvml.Return) {
		_, v, _, _, ret := d.GetRemappedRows()
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors.", true, func(d nvml.Device) (float64, nvml.Return) {
		v, _, _, _, ret := d.GetRemappedRows()
		return float64(v), ret
	}},
	{"DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", false, func(d nvml.Device) (float64, nvml.Return) {
		_, _, _, failed, ret := d.GetRemappedRows()
		if failed {
			return 1, ret
		}
		return 0, ret
	}},
}

func clock(kind nvml.ClockType) func(nvml.Device) (float64, nvml.Return) {
	return func(d nvml.Device) (float64, nvml.Return) {
		v, ret := d.GetClockInfo(kind)
		return float64(v), ret
	}
}

func memory(of func(nvml.Memory_v2) uint64) func(nvml.Device) (float64, nvml.Return) {
	return func(d nvml.Device) (float64, nvml.Return) {
		m, ret := d.GetMemoryInfo_v2()
		return float64(of(m) >> 20), ret
	}
}

func ecc(kind nvml.MemoryErrorType, counter nvml.EccCounterType) func(nvml.Device) (float64, nvml.Return) {
	return func(d nvml.Device) (float64, nvml.Return) {
		v, ret := d.GetTotalEccErrors(kind, counter)
		return float64(v), ret
	}
}

// fieldValue reads what NVML has no function of its own for.
func fieldValue(id uint32) func(nvml.Device) (float64, nvml.Return) {
	return func(d nvml.Device) (float64, nvml.Return) {
		values := []nvml.FieldValue{{FieldId: id}}
		if ret := d.GetFieldValues(values); ret != nvml.SUCCESS {
			return 0, ret
		}
		return number(values[0]), nvml.Return(values[0].NvmlReturn)
	}
}

// number is a field's value, whatever its C type; Linux on amd64 and arm64, where
// there are such cards, is little-endian and has 64-bit longs.
func number(v nvml.FieldValue) float64 {
	bits := binary.LittleEndian.Uint64(v.Value[:])
	switch nvml.ValueType(v.ValueType) {
	case nvml.VALUE_TYPE_DOUBLE:
		return math.Float64frombits(bits)
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return float64(uint32(bits)) // the other half is not the field's
	case nvml.VALUE_TYPE_SIGNED_INT:
		return float64(int32(bits))
	case nvml.VALUE_TYPE_UNSIGNED_SHORT:
		return float64(uint16(bits))
	case nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		return float64(int64(bits))
	default:
		return float64(bits)
	}
}
