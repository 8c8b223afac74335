package gpu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Event is something that happened to a card by the driver's own account.
type Event struct {
	// UUID is empty where the driver does not tell which card it was: then it may
	// have been any.
	UUID string
	// Slices are the UUIDs of those of its MIG slices that it concerns alone, where the
	// driver tells that; nil is the card.
	Slices []string
	Kind   EventKind
	// XID is the number of the error, of kind XIDError.
	XID uint64
}

// EventKind tells events apart.
type EventKind string

// The kinds of events.
const (
	XIDError       EventKind = "XID"
	DoubleBitError EventKind = "DoubleBitECC"
	PowerChange    EventKind = "Power"
	ClockChange    EventKind = "Clock"
	MIGChange      EventKind = "MIG"
)

var eventKinds = map[uint64]EventKind{
	nvml.EventTypeXidCriticalError:  XIDError,
	nvml.EventTypeDoubleBitEccError: DoubleBitError,
	nvml.EventTypePowerSourceChange: PowerChange,
	nvml.EventTypeClock:             ClockChange,
	nvml.EventMigConfigChange:       MIGChange,
}

// noInstance stands where an event is not of one GPU or compute instance
// (nvmlEventData_t).
const noInstance = 0xFFFFFFFF

const (
	// waitFor is how long one wait for an event lasts; waitPatience, when a wait
	// counts as one that will never return.
	waitFor      = 5 * time.Second
	waitPatience = time.Minute
)

// Watch tells every event of the cards that are there now, until ctx ends (nil) or
// the driver can't be followed any more; the caller then looks what has become of
// the cards and watches anew. ErrSilent is a wait that does not return. began is
// called when events are followed; it and seen must not block.
func (m *Machine) Watch(ctx context.Context, began func(), seen func(Event)) error {
	r, err := ask(ctx, m.list, m.o.listPatience, m.register)
	if err != nil {
		return err
	}
	set := r.set
	began()
	waits := newLane()
	for ctx.Err() == nil {
		event, err := ask(ctx, waits, m.o.waitPatience, r.wait)
		switch {
		case ctx.Err() != nil:
			return nil // the wait goes on for a moment, so the set can't be freed
		case errors.Is(err, ErrSilent):
			return err // nor here
		case err != nil:
			_ = set.Free()
			return err
		case event != nil:
			seen(*event)
		}
	}
	return nil
}

// registration is what events are waited for with. A card that fell off the bus does
// not tell its UUID any more, so they are kept.
type registration struct {
	set   nvml.EventSet
	uuids map[nvml.Device]string
	found func() Found
}

// register asks for the events of all cards, of each those that it knows.
func (m *Machine) register() (*registration, error) {
	set, ret := m.lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("ask for events: %w", ret)
	}
	r := &registration{set: set, uuids: map[nvml.Device]string{}, found: m.Found}
	for _, card := range m.Found().Cards {
		device, err := m.device(card.UUID)
		if err != nil {
			continue // it went meanwhile, which the next look tells
		}
		wanted := uint64(0)
		for kind := range eventKinds {
			wanted |= kind
		}
		if knows, ret := device.GetSupportedEventTypes(); ret == nvml.SUCCESS {
			wanted &= knows
		}
		if wanted != 0 && device.RegisterEvents(wanted, set) == nvml.SUCCESS {
			r.uuids[device] = card.UUID
		}
	}
	if len(r.uuids) == 0 {
		_ = set.Free()
		return nil, errors.New("ask for events: none of the cards tells any")
	}
	return r, nil
}

// wait returns the next event, or nil if there was none for a while.
func (r *registration) wait() (*Event, error) {
	data, ret := r.set.Wait(uint32(waitFor / time.Millisecond))
	switch ret {
	case nvml.ERROR_TIMEOUT:
		return nil, nil
	case nvml.SUCCESS:
	default:
		return nil, fmt.Errorf("wait for events: %w", ret)
	}
	kind, ok := eventKinds[data.EventType]
	if !ok {
		return nil, nil
	}
	event := &Event{Kind: kind}
	if kind == XIDError {
		event.XID = data.EventData
	}
	if data.Device != nil {
		event.UUID = r.uuids[data.Device]
		if card, ok := r.found().Card(event.UUID); ok {
			event.Slices = concerned(card, data)
		}
	}
	return event, nil
}

// concerned are the slices of the instance that an event names.
func concerned(card Card, data nvml.EventData) []string {
	var uuids []string
	for _, s := range card.Slices {
		if uint32(s.GPUInstance) == data.GpuInstanceId &&
			(data.ComputeInstanceId == noInstance || uint32(s.ComputeInstance) == data.ComputeInstanceId) {
			uuids = append(uuids, s.UUID)
		}
	}
	return uuids
}
