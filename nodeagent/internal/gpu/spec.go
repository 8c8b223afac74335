package gpu

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"

	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"k8s.io/klog/v2"
)

// errSlices says that containers can't be told how to use the slices, only the cards.
var errSlices = errors.New("its MIG slices can't be given to containers")

// withoutSlices is found with the cards in MIG mode broken for that reason: the whole
// cards go on.
func withoutSlices(found Found, reason error) Found {
	cards := found.Cards
	found.Cards = nil
	for _, c := range cards {
		if c.MIG && len(c.Slices) > 0 {
			found.Broken = append(found.Broken, Broken{UUID: c.UUID, Index: c.Index, MIG: true, Cause: reason.Error()})
		} else {
			found.Cards = append(found.Cards, c)
		}
	}
	return found
}

// writeSpec writes the CDI spec of the real cards and slices, each named by its UUID.
// It does not take over a spec that others wrote: theirs may be of another driver. It is
// errSlices if it could be written without slices.
func writeSpec(o Options, found Found) error {
	hook := o.CDIHook
	if hook == "" {
		var err error
		if hook, err = FindHook(); err != nil {
			return err
		}
	}
	root := o.DriverRoot
	if root == "" {
		root = "/"
	}
	namer, err := nvcdi.NewDeviceNamer(nvcdi.DeviceNameStrategyUUID)
	if err != nil {
		return fmt.Errorf("name the cards for CDI: %w", err)
	}
	lib, err := nvcdi.New(
		nvcdi.WithMode(nvcdi.ModeNvml),
		nvcdi.WithNvmlLib(o.NVML),
		nvcdi.WithDeviceNamers(namer),
		nvcdi.WithDriverRoot(root),
		nvcdi.WithNVIDIACDIHookPath(hook),
		nvcdi.WithVendor(cdiVendor),
		nvcdi.WithClass(cdiClass),
		// It serves sharing one card, which we do not, and a hook program older than
		// our library does not have it.
		nvcdi.WithDisabledHooks("apply-cuda-memory-limits"),
		nvcdi.WithLogger(toolkitLogger{}),
	)
	if err != nil {
		return fmt.Errorf("describe the cards for CDI: %w", err)
	}
	// Named one by one only where MIG is on: drivers that do not know it lack the call
	// by which a UUID is told to be a slice's or a card's.
	var uuids []string
	sliced := false
	if slices.ContainsFunc(found.Cards, func(c Card) bool { return c.MIG }) || slices.ContainsFunc(found.Broken, func(b Broken) bool { return b.MIG }) {
		for _, d := range found.Devices() {
			uuids, sliced = append(uuids, d.UUID), sliced || d.Slice()
		}
	}
	spec, err := lib.GetSpec(uuids...)
	if err != nil && sliced {
		return fmt.Errorf("%w: %w", errSlices, err)
	}
	if err != nil {
		return fmt.Errorf("describe the cards for CDI: %w", err)
	}
	if err := spec.Save(SpecPath(o.CDIDir, false)); err != nil {
		return fmt.Errorf("write the CDI spec: %w", err)
	}
	return nil
}

// FindHook finds the program that CDI specs of NVIDIA cards run when a container
// is made: without it containers do not find the driver's libraries.
func FindHook() (string, error) {
	for _, name := range []string{"nvidia-cdi-hook", "nvidia-ctk"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("nvidia-cdi-hook is not installed: containers would not find the driver's libraries; install the package nvidia-container-toolkit-base")
}

// toolkitLogger passes on what the toolkit says; nearly all of it is about
// optional files that a machine does not have.
type toolkitLogger struct{}

func (toolkitLogger) Debugf(f string, a ...any)   { klog.V(5).Infof(f, a...) }
func (toolkitLogger) Errorf(f string, a ...any)   { klog.V(2).Infof(f, a...) }
func (toolkitLogger) Infof(f string, a ...any)    { klog.V(4).Infof(f, a...) }
func (toolkitLogger) Warningf(f string, a ...any) { klog.V(3).Infof(f, a...) }
func (toolkitLogger) Tracef(f string, a ...any)   { klog.V(6).Infof(f, a...) }
