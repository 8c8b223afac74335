package gpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/api/contract"
)

// The kinds of our CDI specs. The one for real cards is not nvidia.com/gpu: where
// nvidia-cdi-refresh writes that one too, the same device in two specs would make
// the runtime refuse both.
const (
	cdiVendor         = contract.Group
	cdiClass          = "gpu"
	cdiClassSimulated = "simulated-gpu"
)

// Options of Open.
type Options struct {
	// NVML is the driver library; nil is the machine's own, or in simulation the
	// mock of that machine.
	NVML nvml.Interface
	// Simulate is one of Machines, or empty for real cards.
	Simulate string
	// MachineID tells two simulated machines apart: the UUIDs of simulated cards
	// are derived from it, the machine simulated and the card's index, so that they
	// stay the same when the agent starts again. Required in simulation.
	MachineID string
	// CDIDir is where the container runtime reads CDI specs, for example
	// /var/run/cdi. It is made if it is not there.
	CDIDir string
	// StateDir holds the files that stand for simulated cards. Default
	// CDIDir/simulated.
	StateDir string
	// NvidiaSMI is the path of the nvidia-smi-simulated program; it is put into
	// containers that get simulated cards. Required in simulation.
	NvidiaSMI string
	// CDIHook is the path of nvidia-cdi-hook or nvidia-ctk; empty is found in PATH.
	CDIHook string
	// DriverRoot is where the driver's libraries are found; default "/".
	DriverRoot string
	// AllowNone makes a machine without a card an empty inventory, not an error.
	AllowNone bool
}

// ErrNone says that the machine has no card.
var ErrNone = errors.New("this machine has no usable NVIDIA GPU")

// Open reads the machine's GPUs and writes the CDI spec by which containers get
// them. Without a card it is ErrNone, unless that is allowed.
func Open(o Options) (Inventory, error) {
	if !filepath.IsAbs(o.CDIDir) {
		return nil, fmt.Errorf("the directory of CDI specs, %q, is not an absolute path", o.CDIDir)
	}
	if o.Simulate != "" {
		return openSimulated(o)
	}
	if o.NVML == nil {
		o.NVML = nvml.New()
	}
	inv, err := openReal(o)
	if errors.Is(err, ErrNone) && o.AllowNone {
		klog.Background().Info("the machine has no GPU that pods could get", "cause", err)
		return &inventory{kind: cdiVendor + "/" + cdiClass}, nil
	}
	if errors.Is(err, ErrNone) {
		return nil, fmt.Errorf("%w; install NVIDIA's driver and see that nvidia-smi lists the cards, or try without cards: --simulate-gpus dgxh200", err)
	}
	return inv, err
}

// Look reads the machine's real cards and writes nothing; lib may be nil for the
// machine's own driver. Without a driver, or a card, it is ErrNone.
func Look(lib nvml.Interface) (Inventory, error) {
	if lib == nil {
		lib = nvml.New()
	}
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: start NVML: %s", ErrNone, ret.Error())
	}
	defer func() { _ = lib.Shutdown() }()
	inv, err := read(lib)
	if err == nil && len(inv.cards) == 0 {
		err = fmt.Errorf("%w: the driver is there and lists none", ErrNone)
	}
	if err != nil {
		return nil, err
	}
	inv.kind = cdiVendor + "/" + cdiClass
	return inv, nil
}

// SpecPath is where Open writes the CDI spec of the cards.
func SpecPath(cdiDir string, simulated bool) string {
	if simulated {
		return filepath.Join(cdiDir, cdiVendor+"-"+cdiClassSimulated+".json")
	}
	return filepath.Join(cdiDir, cdiVendor+"-"+cdiClass+".yaml")
}

func openReal(o Options) (Inventory, error) {
	inv, err := Look(o.NVML)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.CDIDir, 0o755); err != nil { //nolint:gosec // the runtime's directory, as the runtime has it
		return nil, fmt.Errorf("make the directory of CDI specs: %w", err)
	}
	if err := writeSpec(o); err != nil {
		return nil, err
	}
	return inv, nil
}
