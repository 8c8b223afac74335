package gpu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// read reads all cards of a library that was initialized.
func read(lib nvml.Interface) (*inventory, error) {
	inv := &inventory{}
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count the cards: %w", ret)
	}
	for i := range count {
		card, err := readCard(lib, i)
		if err != nil {
			return nil, fmt.Errorf("read card %d: %w", i, err)
		}
		inv.cards = append(inv.cards, card)
	}
	if version, ret := lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		inv.driverVersion = version
	}
	if version, ret := lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		inv.cudaVersion = strconv.Itoa(version/1000) + "." + strconv.Itoa(version%1000/10)
	}
	return inv, nil
}

func readCard(lib nvml.Interface, index int) (Card, error) {
	device, ret := lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return Card{}, fmt.Errorf("open it: %w", ret)
	}
	card := Card{Index: index}
	if card.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		return Card{}, fmt.Errorf("read its UUID: %w", ret)
	}
	if card.Product, ret = device.GetName(); ret != nvml.SUCCESS {
		return Card{}, fmt.Errorf("read its name: %w", ret)
	}
	// The shipped mock of one machine says so in its name; all of them are.
	card.Product = strings.TrimPrefix(card.Product, "Mock ")
	if card.MinorNumber, ret = device.GetMinorNumber(); ret != nvml.SUCCESS {
		return Card{}, fmt.Errorf("read its minor number: %w", ret)
	}
	memory, ret := device.GetMemoryInfo()
	if ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED {
		return Card{}, fmt.Errorf("read its memory: %w", ret)
	}
	card.MemoryBytes = memory.Total
	if card.CUDAMajor, card.CUDAMinor, ret = device.GetCudaComputeCapability(); ret != nvml.SUCCESS {
		return Card{}, fmt.Errorf("read its compute capability: %w", ret)
	}
	if mode, _, ret := device.GetMigMode(); ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
		return Card{}, fmt.Errorf("it is cut into MIG slices, which are not given to pods yet; make it whole again: nvidia-smi -i %d -mig 0", index)
	}
	if pci, ret := device.GetPciInfo(); ret == nvml.SUCCESS {
		card.PCIBusID = text(pci.BusId[:])
	}
	return card, nil
}

// text is a C string in an array.
func text[T ~uint8 | ~int8](raw []T) string {
	var b strings.Builder
	for _, c := range raw {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}
