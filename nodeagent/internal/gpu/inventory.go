// Package gpu knows the machine's GPUs and how containers get them: an inventory
// read from NVML, and a CDI spec that names each card by its UUID. Where there is
// no card it can simulate a machine, and says so everywhere.
package gpu

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ainode/ainode/api/contract"
)

// Card is one GPU.
type Card struct {
	// UUID as NVML gives it, GPU-….
	UUID string
	// Index is NVML's index, which changes when a card falls off the bus.
	Index int
	// Product is NVML's name, for example "NVIDIA H200".
	Product string
	// MemoryBytes is the card's total memory; 0 where it shares the machine's.
	MemoryBytes uint64
	// MinorNumber is n of /dev/nvidia<n>.
	MinorNumber int
	// CUDAMajor and CUDAMinor are the compute capability.
	CUDAMajor, CUDAMinor int
	// PCIBusID as NVML gives it; empty in simulation.
	PCIBusID string
}

// Inventory is the machine's GPUs as they were when it was opened.
type Inventory interface {
	// Cards in NVML's order. The slice is the caller's.
	Cards() []Card
	// UUIDs of Cards, in the same order.
	UUIDs() []string
	// CDIDevice is the CDI name of a card, VENDOR/CLASS=UUID; empty if there is
	// no such card.
	CDIDevice(uuid string) string
	// Simulated is the machine that is simulated; empty for real cards.
	Simulated() string
	// DriverVersion of NVIDIA's driver; empty without a card.
	DriverVersion() string
	// CUDAVersion is the newest CUDA that the driver speaks, for example "12.4".
	CUDAVersion() string
}

// inventory implements Inventory.
type inventory struct {
	cards                      []Card
	kind                       string // of the CDI spec, VENDOR/CLASS
	simulated                  string
	driverVersion, cudaVersion string
}

func (i *inventory) Cards() []Card { return slices.Clone(i.cards) }

func (i *inventory) UUIDs() []string {
	var uuids []string
	for _, c := range i.cards {
		uuids = append(uuids, c.UUID)
	}
	return uuids
}

func (i *inventory) CDIDevice(uuid string) string {
	if !slices.Contains(i.UUIDs(), uuid) {
		return ""
	}
	return i.kind + "=" + uuid
}

func (i *inventory) Simulated() string     { return i.simulated }
func (i *inventory) DriverVersion() string { return i.driverVersion }
func (i *inventory) CUDAVersion() string   { return i.cudaVersion }

// NodeLabels describe the cards on a Node, under GPU feature discovery's names,
// and say if they are simulated. gpu.present is left out: DaemonSets select it. A
// machine without a card has no label. The first card speaks for all, as there.
func NodeLabels(inv Inventory) map[string]string {
	labels := map[string]string{}
	if cards := inv.Cards(); len(cards) > 0 {
		labels["nvidia.com/gpu.count"] = strconv.Itoa(len(cards))
		labels["nvidia.com/gpu.product"] = strings.Join(strings.Fields(cards[0].Product), "-")
		labels["nvidia.com/gpu.memory"] = strconv.FormatUint(cards[0].MemoryBytes>>20, 10)
	}
	if inv.Simulated() != "" {
		labels[contract.SimulatedLabel] = "true"
	}
	return labels
}
