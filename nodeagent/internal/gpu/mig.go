package gpu

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// Slice is what a card in MIG mode gives to containers: a compute instance of one of
// its GPU instances (NVIDIA Multi-Instance GPU User Guide, "Terminology").
type Slice struct {
	// UUID as NVML gives it, MIG-….
	UUID string
	// Profile is NVIDIA's name of its kind, for example 1g.10gb, 1c.3g.40gb, 1g.10gb+me.
	Profile string
	// Index among the card's slices, as nvidia-smi -L counts them.
	Index int
	// GPUInstance and ComputeInstance are their ids on the card.
	GPUInstance, ComputeInstance int
	// Attributes say what it has of the card; memory in MiB.
	Attributes nvml.DeviceAttributes
}

// Kind is the profile as labels and resources have it: k8s-device-plugin writes a
// dot for the plus, which no name may hold (internal/resource, GetName).
func (s Slice) Kind() string { return strings.ReplaceAll(s.Profile, "+", ".") }

// Resource is what the slice is counted as (strategy "mixed" of k8s-device-plugin).
func (s Slice) Resource() corev1.ResourceName {
	return corev1.ResourceName(contract.MIGResourcePrefix + s.Kind())
}

// MemoryBytes is the slice's memory.
func (s Slice) MemoryBytes() uint64 { return s.Attributes.MemorySizeMB << 20 }

// readSlices reads the slices of a card in MIG mode.
func readSlices(lib nvml.Interface, handle nvml.Device) ([]Slice, error) {
	card, err := device.New(lib).NewDevice(handle)
	if err != nil {
		return nil, fmt.Errorf("read its MIG slices: %w", err)
	}
	var slices []Slice
	err = card.VisitMigDevices(func(index int, m device.MigDevice) error {
		slice, err := readSlice(m)
		slice.Index = index
		slices = append(slices, slice)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read its MIG slices: %w", err)
	}
	return slices, nil
}

func readSlice(m device.MigDevice) (Slice, error) {
	var s Slice
	var ret nvml.Return
	if s.UUID, ret = m.GetUUID(); ret != nvml.SUCCESS {
		return s, fmt.Errorf("UUID: %w", ret)
	}
	if s.GPUInstance, ret = m.GetGpuInstanceId(); ret != nvml.SUCCESS {
		return s, fmt.Errorf("GPU instance of %s: %w", s.UUID, ret)
	}
	if s.ComputeInstance, ret = m.GetComputeInstanceId(); ret != nvml.SUCCESS {
		return s, fmt.Errorf("compute instance of %s: %w", s.UUID, ret)
	}
	if s.Attributes, ret = m.GetAttributes(); ret != nvml.SUCCESS {
		return s, fmt.Errorf("attributes of %s: %w", s.UUID, ret)
	}
	profile, err := m.GetProfile()
	if err != nil {
		return s, fmt.Errorf("profile of %s: %w", s.UUID, err)
	}
	s.Profile = profile.String()
	return s, nil
}
