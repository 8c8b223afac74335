package gpu

import (
	"context"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Reading is what was measured of one card, by the names of Fields.
type Reading map[string]float64

// Read measures a card; ErrSilent says that the card, or the driver for it, does
// not answer. Of different cards one may be asked while another is silent.
func (m *Machine) Read(ctx context.Context, uuid string) (Reading, error) {
	return ask(ctx, m.lane(uuid), m.o.readPatience, func() (Reading, error) {
		device, err := m.device(uuid)
		if err != nil {
			return nil, err
		}
		r := Reading{}
		for _, f := range Fields {
			v, ret := f.read(device)
			switch ret {
			case nvml.SUCCESS:
				r[f.Name] = v
			case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED, nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED:
				return nil, fmt.Errorf("measure it: %w", ret)
			}
		}
		return r, nil
	})
}

// Recovery is what the driver itself says a card needs before it can be used again;
// known is false for drivers that do not tell (before R565).
func (m *Machine) Recovery(ctx context.Context, uuid string) (action nvml.DeviceGpuRecoveryAction, known bool, err error) {
	type answer struct {
		action nvml.DeviceGpuRecoveryAction
		known  bool
	}
	a, err := ask(ctx, m.lane(uuid), m.o.readPatience, func() (answer, error) {
		device, err := m.device(uuid)
		if err != nil {
			return answer{}, err
		}
		v, ret := fieldValue(nvml.FI_DEV_GET_GPU_RECOVERY_ACTION)(device)
		return answer{nvml.DeviceGpuRecoveryAction(v), ret == nvml.SUCCESS}, nil
	})
	return a.action, a.known, err
}

func (m *Machine) device(uuid string) (nvml.Device, error) {
	device, ret := m.lib.DeviceGetHandleByUUID(uuid)
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("open it: %w", ret)
	}
	return device, nil
}
