package gpu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// read reads all cards of a library that was initialized. A card that can't be
// read does not hide the others.
func read(lib nvml.Interface) (Found, error) {
	var found Found
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return Found{}, fmt.Errorf("count the cards: %w", ret)
	}
	var devices []nvml.Device
	for i := range count {
		device, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			found.Broken = append(found.Broken, Broken{Index: i, Cause: "open it: " + ret.Error()})
			continue
		}
		card, err := readCard(lib, device, i)
		if err != nil {
			found.Broken = append(found.Broken, Broken{UUID: card.UUID, Index: i, MIG: card.MIG, Cause: err.Error()})
			continue
		}
		found.Cards, devices = append(found.Cards, card), append(devices, device)
	}
	if version, ret := lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		found.DriverVersion = version
	}
	if version, ret := lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		found.CUDAVersion = strconv.Itoa(version/1000) + "." + strconv.Itoa(version%1000/10)
	}
	found.Links = readLinks(found.Cards, devices)
	return found, nil
}

// readCard reads one card. With an error the card has what was read until then.
func readCard(lib nvml.Interface, device nvml.Device, index int) (Card, error) {
	card := Card{Index: index}
	var ret nvml.Return
	if card.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		return card, fmt.Errorf("read its UUID: %w", ret)
	}
	if card.Product, ret = device.GetName(); ret != nvml.SUCCESS {
		return card, fmt.Errorf("read its name: %w", ret)
	}
	// The shipped mock of one machine says so in its name; all of them are.
	card.Product = strings.TrimPrefix(card.Product, "Mock ")
	if card.MinorNumber, ret = device.GetMinorNumber(); ret != nvml.SUCCESS {
		return card, fmt.Errorf("read its minor number: %w", ret)
	}
	memory, ret := device.GetMemoryInfo()
	if ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED {
		return card, fmt.Errorf("read its memory: %w", ret)
	}
	card.MemoryBytes = memory.Total
	if card.CUDAMajor, card.CUDAMinor, ret = device.GetCudaComputeCapability(); ret != nvml.SUCCESS {
		return card, fmt.Errorf("read its compute capability: %w", ret)
	}
	mode, next, ret := device.GetMigMode()
	card.MIGCapable = ret == nvml.SUCCESS
	card.MIG = card.MIGCapable && mode == nvml.DEVICE_MIG_ENABLE
	card.MIGPending = card.MIGCapable && mode != next
	if card.MIG {
		var err error
		if card.Slices, err = readSlices(lib, device); err != nil {
			return card, err
		}
	}
	if mode, ret := device.GetComputeMode(); ret == nvml.SUCCESS {
		if mode == nvml.COMPUTEMODE_PROHIBITED {
			return card, fmt.Errorf("its compute mode lets no process use it; allow it again: nvidia-smi -i %d -c DEFAULT", index)
		}
		card.Exclusive = mode == nvml.COMPUTEMODE_EXCLUSIVE_PROCESS || mode == nvml.COMPUTEMODE_EXCLUSIVE_THREAD
	}
	if pci, ret := device.GetPciInfo(); ret == nvml.SUCCESS {
		card.PCIBusID = text(pci.BusId[:])
	}
	if ecc, _, ret := device.GetEccMode(); ret == nvml.SUCCESS {
		card.ECC = ecc == nvml.FEATURE_ENABLED
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
