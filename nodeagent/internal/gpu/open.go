package gpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

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
	// SimulateMIG is how simulated cards are cut, as simulated.ParseLayout reads it.
	SimulateMIG string
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
	// AllowNone makes a machine without a card one that has none, not an error.
	AllowNone bool

	// They replace the defaults in tests.
	listPatience, readPatience, waitPatience time.Duration
}

// ErrNone says that the machine has no card.
var ErrNone = errors.New("this machine has no usable NVIDIA GPU")

// Open reads the machine's GPUs and writes the CDI spec by which containers get
// them. Without a card it is ErrNone, and with a driver that does not answer
// ErrSilent, unless AllowNone lets the machine do without until Refresh finds some.
func Open(o Options) (*Machine, error) {
	if !filepath.IsAbs(o.CDIDir) {
		return nil, fmt.Errorf("the directory of CDI specs, %q, is not an absolute path", o.CDIDir)
	}
	o.listPatience, o.readPatience, o.waitPatience = cmp.Or(o.listPatience, listPatience), cmp.Or(o.readPatience, readPatience), cmp.Or(o.waitPatience, waitPatience)
	m := &Machine{lib: o.NVML, kind: cdiVendor + "/" + cdiClass, list: newLane()}
	if o.Simulate != "" {
		if err := m.simulate(&o); err != nil {
			return nil, err
		}
	} else if m.lib == nil {
		m.lib = nvml.New()
	}
	o.NVML = m.lib
	m.o = o
	err := m.Refresh(context.Background())
	switch {
	case err == nil:
	case o.AllowNone && (errors.Is(err, ErrNone) || errors.Is(err, ErrSilent)):
		klog.Background().Info("the machine has no GPU that pods could get", "cause", err)
	case errors.Is(err, ErrNone):
		return nil, fmt.Errorf("%w; install NVIDIA's driver and see that nvidia-smi lists the cards, or try without cards: --simulate-gpus dgxh200", err)
	default:
		return nil, err
	}
	return m, nil
}

// Look reads the machine's real cards and writes nothing; lib may be nil for the
// machine's own driver. Without a driver, or a card, it is ErrNone, and ErrSilent with
// a driver that does not answer.
func Look(lib nvml.Interface) (Found, error) {
	if lib == nil {
		lib = nvml.New()
	}
	return ask(context.Background(), newLane(), listPatience, func() (Found, error) {
		if err := begin(lib); err != nil {
			return Found{}, err
		}
		defer func() { _ = lib.Shutdown() }()
		found, err := read(lib)
		if err == nil && len(found.Cards)+len(found.Broken) == 0 {
			err = fmt.Errorf("%w: the driver is there and lists none", ErrNone)
		}
		return found, err
	})
}

// called are those of the functions of NVML that we call and that older drivers lack; R510 has
// them all. To call one that is not there ends the whole program.
var called = []string{
	"nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetMigMode", "nvmlDeviceIsMigDeviceHandle",
	"nvmlDeviceGetRemappedRows", "nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption",
}

// begin begins a session with NVML, to be ended by Shutdown. It is ErrNone without a
// driver, and with one that is too old.
func begin(lib nvml.Interface) error {
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return fmt.Errorf("%w: start NVML: %s", ErrNone, ret.Error())
	}
	for _, function := range called {
		if err := lib.Extensions().LookupSymbol(function); err != nil {
			_ = lib.Shutdown()
			return fmt.Errorf("%w: the driver is too old: its NVML lacks %s; it takes R510 or newer", ErrNone, function)
		}
	}
	return nil
}

// SpecPath is where Open writes the CDI spec of the cards.
func SpecPath(cdiDir string, simulated bool) string {
	if simulated {
		return filepath.Join(cdiDir, cdiVendor+"-"+cdiClassSimulated+".json")
	}
	return filepath.Join(cdiDir, cdiVendor+"-"+cdiClass+".yaml")
}
