// Package gpu knows the machine's GPUs and how containers get them: what NVML finds,
// measures and reports of each card, and a CDI spec that names each card by its
// UUID. Where there is no card it can simulate a machine, and says so everywhere.
package gpu

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/topology"
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
	// PCIBusID as NVML gives it, 00000000:17:00.0.
	PCIBusID string
	// ECC reports whether the memory's errors are counted and corrected.
	ECC bool
	// Exclusive says that one process at a time may use it.
	Exclusive bool
	// MIGCapable cards can be cut into slices.
	MIGCapable bool
	// MIG says that the card is in MIG mode: nobody gets it whole, only its Slices,
	// in NVML's order.
	MIG    bool
	Slices []Slice
	// MIGPending says that the card leaves the mode it is in, MIG or not, when it is
	// reset next.
	MIGPending bool
}

// Broken is a card that is there and can't be given to pods.
type Broken struct {
	// UUID is empty where the card does not even tell that.
	UUID  string
	Index int
	// MIG says that it is in MIG mode.
	MIG bool
	// Cause is for people.
	Cause string
}

// Found is what the driver told last.
type Found struct {
	// Cards in NVML's order, without the broken ones.
	Cards  []Card
	Broken []Broken
	// Links are how the cards talk to each other.
	Links topology.Map
	// DriverVersion of NVIDIA's driver, and CUDAVersion, the newest CUDA that it
	// speaks, for example "12.4".
	DriverVersion, CUDAVersion string
	// Cause is why the driver tells nothing; empty while it answers. Cards are then
	// the last ones known.
	Cause string
}

// UUIDs of the cards, in their order.
func (f Found) UUIDs() []string {
	var uuids []string
	for _, c := range f.Cards {
		uuids = append(uuids, c.UUID)
	}
	return uuids
}

// Devices are what containers may be given: whole cards, and slices of the others.
func (f Found) Devices() []topology.Device {
	var devices []topology.Device
	for _, c := range f.Cards {
		if !c.MIG {
			devices = append(devices, topology.Device{UUID: c.UUID, Card: c.UUID, Resource: contract.GPUResource, Usable: true})
		}
		for _, s := range c.Slices {
			devices = append(devices, topology.Device{UUID: s.UUID, Card: c.UUID, Resource: s.Resource(), Usable: true})
		}
	}
	return devices
}

// Card is the card of that UUID.
func (f Found) Card(uuid string) (Card, bool) {
	i := slices.IndexFunc(f.Cards, func(c Card) bool { return c.UUID == uuid })
	if i < 0 {
		return Card{}, false
	}
	return f.Cards[i], true
}

// LabelPrefixes begin all labels that NodeLabels gives, and no other agent's or
// person's on a Node of ours.
var LabelPrefixes = []string{
	"nvidia.com/gpu.count", "nvidia.com/gpu.product", "nvidia.com/gpu.memory", "nvidia.com/gpu.family",
	"nvidia.com/gpu.compute.", "nvidia.com/mig.capable", "nvidia.com/mig.strategy", contract.MIGResourcePrefix, "nvidia.com/cuda.",
}

// labelPrefix begins the names that GPU feature discovery uses.
const labelPrefix = "nvidia.com/"

// NodeLabels describe the cards on a Node, under GPU feature discovery's names
// (k8s-device-plugin, docs/gpu-feature-discovery), and say if they are simulated.
// gpu.present is left out: DaemonSets select it. A machine without a card has no
// label. The first card speaks for all, and gpu.count counts those in MIG mode too, as
// there; what pods may ask for stands in the Node's capacity.
func (m *Machine) NodeLabels() map[string]string {
	f := m.Found()
	labels := map[string]string{}
	if len(f.Cards) > 0 {
		first := f.Cards[0]
		for name, value := range map[string]string{
			"gpu.count":         strconv.Itoa(len(f.Cards)),
			"gpu.product":       strings.Join(strings.Fields(first.Product), "-"),
			"gpu.memory":        strconv.FormatUint(first.MemoryBytes>>20, 10),
			"gpu.family":        family(first),
			"gpu.compute.major": strconv.Itoa(first.CUDAMajor),
			"gpu.compute.minor": strconv.Itoa(first.CUDAMinor),
			"mig.capable":       strconv.FormatBool(first.MIGCapable),
		} {
			labels[labelPrefix+name] = value
		}
		sliceLabels(labels, f.Cards)
		version(labels, "cuda.driver-version", f.DriverVersion, "major", "minor", "revision")
		version(labels, "cuda.runtime-version", f.CUDAVersion, "major", "minor")
	}
	if m.Simulated() != "" {
		labels[contract.SimulatedLabel] = "true"
	}
	return labels
}

// sliceLabels describe each kind of slice, as GPU feature discovery does with the MIG
// strategy "mixed". The first of a kind speaks for all.
func sliceLabels(labels map[string]string, cards []Card) {
	if slices.ContainsFunc(cards, func(c Card) bool { return c.MIGCapable }) {
		labels[labelPrefix+"mig.strategy"] = "mixed"
	}
	count := map[string]int{}
	for _, c := range cards {
		for _, s := range c.Slices {
			prefix := string(s.Resource()) + "."
			count[prefix]++
			labels[prefix+"count"] = strconv.Itoa(count[prefix])
			if count[prefix] > 1 {
				continue
			}
			labels[prefix+"product"] = strings.Join(append(strings.Fields(c.Product), "MIG", s.Kind()), "-")
			labels[prefix+"memory"] = strconv.FormatUint(s.Attributes.MemorySizeMB, 10)
			for name, n := range map[string]uint32{
				"multiprocessors": s.Attributes.MultiprocessorCount,
				"slices.gi":       s.Attributes.GpuInstanceSliceCount,
				"slices.ci":       s.Attributes.ComputeInstanceSliceCount,
				"engines.copy":    s.Attributes.SharedCopyEngineCount,
				"engines.decoder": s.Attributes.SharedDecoderCount,
				"engines.encoder": s.Attributes.SharedEncoderCount,
				"engines.jpeg":    s.Attributes.SharedJpegCount,
				"engines.ofa":     s.Attributes.SharedOfaCount,
			} {
				labels[prefix+name] = strconv.FormatUint(uint64(n), 10)
			}
		}
	}
}

// version adds a version's parts under their names, and the whole.
func version(labels map[string]string, name, full string, parts ...string) {
	if full == "" {
		return
	}
	labels[labelPrefix+name+".full"] = full
	for i, value := range strings.Split(full, ".") {
		if i < len(parts) {
			labels[labelPrefix+name+"."+parts[i]] = value
		}
	}
}

// family is the architecture by its compute capability, in GPU feature discovery's
// words (internal/lm/resource.go).
func family(c Card) string {
	switch {
	case c.CUDAMajor == 7 && c.CUDAMinor < 5:
		return "volta"
	case c.CUDAMajor == 7:
		return "turing"
	case c.CUDAMajor == 8 && c.CUDAMinor < 9:
		return "ampere"
	case c.CUDAMajor == 8:
		return "ada-lovelace"
	case c.CUDAMajor == 9:
		return "hopper"
	case c.CUDAMajor == 10 || c.CUDAMajor == 12:
		return "blackwell"
	}
	return "undefined"
}
