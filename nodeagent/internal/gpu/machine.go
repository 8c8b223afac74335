package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// How long the driver may take. To list cards it may have to wake each of them
// (seconds, without NVIDIA's persistence daemon); to read one takes milliseconds.
const (
	listPatience = 30 * time.Second
	readPatience = 5 * time.Second
)

// Machine is this machine's GPUs.
type Machine struct {
	o         Options
	lib       nvml.Interface
	kind      string // of the CDI spec, VENDOR/CLASS
	simulated string
	// list is the lane for what concerns all cards.
	list lane
	// open says that NVML was started; of the list lane.
	open bool
	// described are the cards and the driver that the CDI spec is of; of the list lane.
	described []string

	mu    sync.Mutex
	found Found
	cards map[string]lane // by UUID
}

// Found is what the driver told last.
func (m *Machine) Found() Found {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.found
	f.Cards, f.Broken = slices.Clone(f.Cards), slices.Clone(f.Broken)
	return f
}

// CDIDevice is the CDI name of a device, VENDOR/CLASS=UUID; empty if there is no such
// one now.
func (m *Machine) CDIDevice(uuid string) string {
	if !slices.ContainsFunc(m.Found().Devices(), func(d topology.Device) bool { return d.UUID == uuid }) {
		return ""
	}
	return m.kind + "=" + uuid
}

// Simulated is the machine that is simulated; empty for real cards.
func (m *Machine) Simulated() string { return m.simulated }

// Refresh asks the driver anew: cards come and go, and drivers are replaced. Its
// error stands in Found as well.
func (m *Machine) Refresh(ctx context.Context) error {
	found, err := ask(ctx, m.list, m.o.listPatience, m.discover)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		m.found.Cause = err.Error()
		if errors.Is(err, ErrNone) {
			m.found = Found{Cause: err.Error()}
		}
		return err
	}
	m.found = found
	return nil
}

// discover reads all cards, from the session with NVML that is open, or, where that
// one is broken, from a new one. The CDI spec is written anew where it would differ.
// It runs on the list lane.
func (m *Machine) discover() (Found, error) {
	found, err := m.read()
	if err != nil || len(found.Cards) == 0 {
		// The driver may have been replaced, or a card plugged in: only a new session
		// sees that.
		m.close()
		if found, err = m.read(); err != nil {
			return Found{}, err
		}
	}
	if len(found.Cards)+len(found.Broken) == 0 {
		m.close()
		return Found{}, fmt.Errorf("%w: the driver is there and lists none", ErrNone)
	}
	describes := []string{found.DriverVersion}
	for _, c := range found.Cards {
		describes = append(describes, c.UUID, fmt.Sprint(c.MinorNumber, c.MIG))
		for _, s := range c.Slices {
			describes = append(describes, s.UUID, fmt.Sprint(s.GPUInstance, s.ComputeInstance))
		}
	}
	if len(found.Devices()) == 0 || slices.Equal(describes, m.described) {
		return found, nil
	}
	if err = m.describe(found); errors.Is(err, errSlices) {
		// Tried again each time: the slices are made before their device nodes are.
		found, describes = withoutSlices(found, err), nil
		if len(found.Devices()) == 0 {
			return found, nil
		}
		err = m.describe(found)
	}
	if err != nil {
		return Found{}, err
	}
	m.described = describes
	return found, nil
}

func (m *Machine) read() (Found, error) {
	if !m.open {
		if err := begin(m.lib); err != nil {
			return Found{}, err
		}
		m.open = true
	}
	return read(m.lib)
}

func (m *Machine) close() {
	if m.open {
		_ = m.lib.Shutdown() // whatever it says, the next session is a new one
		m.open = false
	}
}

// describe writes the CDI spec.
func (m *Machine) describe(found Found) error {
	if m.simulated != "" {
		if err := writeCards(m.o.StateDir, m.simulated, found); err != nil {
			return err
		}
		return writeSimulatedSpec(m.o, m.kind, m.simulated, found)
	}
	if err := os.MkdirAll(m.o.CDIDir, 0o755); err != nil { // the runtime's directory, as the runtime has it
		return fmt.Errorf("make the directory of CDI specs: %w", err)
	}
	return writeSpec(m.o, found)
}

// lane of a card.
func (m *Machine) lane(uuid string) lane {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cards == nil {
		m.cards = map[string]lane{}
	}
	if m.cards[uuid] == nil {
		m.cards[uuid] = newLane()
	}
	return m.cards[uuid]
}
