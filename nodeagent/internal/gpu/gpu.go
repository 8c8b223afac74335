// Package gpu knows the machine's GPUs and how containers get them: an inventory
// read from NVML, and a CDI spec that names each card by its UUID. Where there is
// no card it can simulate a machine, and says so everywhere.
package gpu

import (
	"errors"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

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
	// MemoryBytes is the card's total memory.
	MemoryBytes uint64
	// MinorNumber is n of /dev/nvidia<n>.
	MinorNumber int
	// CUDAMajor and CUDAMinor are the compute capability.
	CUDAMajor, CUDAMinor int
	// PCIBusID as NVML gives it; empty in simulation.
	PCIBusID string
}

// Inventory is the machine's GPUs. It is read once, at start.
type Inventory interface {
	// Cards in NVML's order. The slice is the caller's.
	Cards() []Card
	// UUIDs of Cards.
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

// Options of Open.
type Options struct {
	// NVML is the driver library; nil is the machine's own.
	NVML nvml.Interface
	// Simulate is one of Machines, or empty for real cards.
	Simulate string
	// MachineID tells two simulated machines apart: the UUIDs of simulated cards
	// are derived from it and the card's index, so that they stay the same when
	// the agent starts again. Required in simulation.
	MachineID string
	// CDIDir is where the container runtime reads CDI specs, for example /var/run/cdi.
	CDIDir string
	// StateDir holds the files that stand for simulated cards. Default CDIDir/simulated.
	StateDir string
	// NvidiaSMI is the path of the nvidia-smi-simulated program; it is put into
	// containers that get simulated cards. Required in simulation.
	NvidiaSMI string
	// AllowNone makes a machine without a card an empty inventory, not an error.
	AllowNone bool
}

// Machines that can be simulated.
var Machines = []string{"dgxa100", "dgxh100", "dgxh200", "dgxb200"}

// Open reads the machine's GPUs and writes the CDI spec by which containers get
// them.
func Open(o Options) (Inventory, error) { return nil, errors.ErrUnsupported }

// NodeLabels describe the cards on a Node, under GPU feature discovery's names,
// and say if they are simulated. A machine without a card has none.
func NodeLabels(inv Inventory) map[string]string {
	labels := map[string]string{}
	cards := inv.Cards()
	if len(cards) > 0 {
		labels["nvidia.com/gpu.count"] = strconv.Itoa(len(cards))
		labels["nvidia.com/gpu.product"] = strings.ReplaceAll(cards[0].Product, " ", "-")
		labels["nvidia.com/gpu.memory"] = strconv.FormatUint(cards[0].MemoryBytes>>20, 10)
	}
	if inv.Simulated() != "" {
		labels[contract.SimulatedLabel] = "true"
	}
	return labels
}
