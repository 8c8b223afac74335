// Package gpuhealth follows the machine's cards and their MIG slices: what each measures,
// what befell it, and whether pods may have it. Only what is concerned is taken from
// pods, and it comes back when its time has come.
package gpuhealth

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// Cards are the machine's, as gpu.Machine has them.
type Cards interface {
	Found() gpu.Found
	Simulated() string
	CDIDevice(uuid string) string
	NodeLabels() map[string]string
	Refresh(ctx context.Context) error
	Read(ctx context.Context, uuid string) (gpu.Reading, error)
	Recovery(ctx context.Context, uuid string) (nvml.DeviceGpuRecoveryAction, bool, error)
	Watch(ctx context.Context, began func(), seen func(gpu.Event)) error
}

// Fault is something that befell a card, or a slice of one.
type Fault struct {
	UUID  string
	Class Class
	// Reason is one word: XID79, DoubleBitECC, Silent, Lost, RecoveryNeeded,
	// RowRemapFailure, MIGChanged.
	Reason string
	// Message names the card or slice: "XID 79 on GPU-…: GPU has fallen off the bus".
	Message string
}

// Options of a Tracker.
type Options struct {
	Cards Cards
	Clock clock.WithTicker
	// Path of the file that remembers, and Boot, the kernel's boot id.
	Path, Boot string
	// Faulted is told each fault, the same one of a card or slice at most once in ten
	// minutes, and what is no more (Recut). It must not block.
	Faulted func(Fault)
	// Changed is called when other cards may be given to pods than before, or for
	// another reason. It must not block.
	Changed func()
}

// Tracker knows how the cards are.
type Tracker struct {
	o Options
	// again makes the cards be looked at before their time, and recut listed anew first.
	again chan struct{}
	recut atomic.Bool

	mu       sync.Mutex
	memory   memory
	saved    time.Time
	samples  map[string]Sample
	trouble  map[string]string // of cards that did not answer when they were read last
	told     map[told]time.Time
	counters map[Count]uint64
	lastXID  map[string]uint64
	// events is why events are not followed; rewatch makes them be followed anew, of
	// the cards that are there now.
	events  string
	rewatch context.CancelFunc
}

// Sample is what was measured of a card last.
type Sample struct {
	gpu.Reading
	// Busy is when the card was last seen to compute, or when it was first looked at.
	Busy time.Time
}

// Count is what faults are counted by.
type Count struct {
	UUID, Reason string
	Class        Class
}

type told struct{ uuid, reason string }

// New makes a Tracker that remembers what an earlier one knew.
func New(o Options) (*Tracker, error) {
	m, err := load(o.Path)
	if err != nil {
		// A crash leaves no such file (statefile): the disk is broken, or somebody wrote it.
		// A card that was to be replaced would ruin what runs on it; a person knows more.
		m.Damage = err.Error()
		_ = os.Remove(o.Path + ".damaged")
		if kept := os.Link(o.Path, o.Path+".damaged"); kept == nil {
			m.Damage += " (kept as " + o.Path + ".damaged)"
		}
		klog.Background().Error(err, "No GPU is given to pods until somebody vouches for it: which were to be replaced is not known")
	}
	if m.Boot != o.Boot {
		m.reboot(o.Boot)
	}
	t := &Tracker{
		o: o, again: make(chan struct{}, 1), memory: m, samples: map[string]Sample{}, trouble: map[string]string{},
		told: map[told]time.Time{}, counters: map[Count]uint64{}, lastXID: map[string]uint64{},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.meet()
	if err != nil {
		t.save(true)
	}
	return t, nil
}

// meet remembers the cards that are there. Callers hold mu.
func (t *Tracker) meet() {
	cards := t.o.Cards.Found().Cards
	t.memory.keepOut(cards, t.o.Clock.Now())
	if t.memory.meet(cards) {
		t.save(true)
	}
}

// savePeriod is how often a record is written in which only the time has changed.
const savePeriod = time.Minute

// save writes the file, if now or when it is due. Callers hold mu.
func (t *Tracker) save(now bool) {
	if at := t.o.Clock.Now(); now || at.Sub(t.saved) >= savePeriod {
		t.saved = at
		if err := t.memory.save(t.o.Path); err != nil {
			klog.Background().Error(err, "a restart of the agent would forget how the GPUs are")
		}
	}
}

// tellAgain is how often the same fault of a card is told: a storm is one story.
const tellAgain = 10 * time.Minute

// fault notes what befell a card, and tells it.
func (t *Tracker) fault(f Fault) {
	t.mu.Lock()
	now := t.o.Clock.Now()
	t.counters[Count{f.UUID, f.Reason, f.Class}]++
	changed := false
	if f.Class != Application && f.UUID != "" {
		before := t.memory.Cards[f.UUID]
		after := before.fault(now, t.o.Boot, f)
		t.memory.Cards[f.UUID] = after
		changed = before.Out != after.Out || before.Text != after.Text || before.Class != after.Class
		t.save(changed)
	}
	key := told{f.UUID, f.Reason}
	last, before := t.told[key]
	tell := changed || !before || now.Sub(last) >= tellAgain
	if tell {
		t.told[key] = now
	}
	t.mu.Unlock()
	if tell {
		klog.Background().Info("A GPU failed", "gpu", f.UUID, "reason", f.Reason, "class", f.Class, "message", f.Message)
		t.o.Faulted(f)
	}
	if changed {
		t.o.Changed()
	}
}

// event turns an event of the driver into a fault.
func (t *Tracker) event(e gpu.Event) {
	switch e.Kind {
	case gpu.XIDError:
		x, concerned := describe(e.XID), []string{e.UUID}
		if len(e.Slices) > 0 && x.ofInstance(e.XID) {
			concerned = e.Slices
		}
		for _, uuid := range concerned {
			t.fault(Fault{uuid, x.Class, fmt.Sprintf("XID%d", e.XID), fmt.Sprintf("XID %d on %s: %s", e.XID, name(uuid), x.Text)})
			t.mu.Lock()
			t.lastXID[uuid] = e.XID // after the fault: who sees it sees what came of it
			t.mu.Unlock()
		}
		if e.UUID == "" || e.XID == recoveryChanged {
			t.lookAgain() // which one it is, and what it needs, the cards themselves tell
		}
	case gpu.DoubleBitError:
		t.fault(Fault{e.UUID, Reset, "DoubleBitECC", "double-bit ECC error on " + name(e.UUID)})
	case gpu.MIGChange:
		t.relist()
	default: // power and clocks change without harm: they are counted
		t.mu.Lock()
		t.counters[Count{e.UUID, string(e.Kind), Application}]++
		t.mu.Unlock()
	}
}

// recoveryChanged is the XID by which the driver says that it has something to say.
const recoveryChanged = 154

func (t *Tracker) lookAgain() {
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// relist makes the cards be listed anew: one may have been cut otherwise.
func (t *Tracker) relist() {
	t.recut.Store(true)
	t.lookAgain()
}

func name(uuid string) string {
	if uuid == "" {
		return "a GPU that the driver does not name"
	}
	return uuid
}

// Devices are all cards that can be given whole, and all slices, those that pods do not
// get now included, in the cards' order.
func (t *Tracker) Devices() []topology.Device {
	var devices []topology.Device
	for _, s := range t.States() {
		if s.Slice != nil || !s.MIG {
			devices = append(devices, topology.Device{UUID: s.ID(), Card: s.UUID, Resource: s.Resource(), Usable: s.Trouble == ""})
		}
	}
	return devices
}

// Device is a card or a slice, also one that is no more; what was never seen is taken
// for a card.
func (t *Tracker) Device(uuid string) topology.Device {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, ok := t.memory.Slices[uuid]; ok {
		return d
	}
	return topology.Device{UUID: uuid, Card: uuid, Resource: contract.GPUResource}
}

// Topology is how the cards talk to each other.
func (t *Tracker) Topology() topology.Map { return t.o.Cards.Found().Links }

// CDIDevice is the CDI device name of a card or a slice; empty if there is no such one now.
func (t *Tracker) CDIDevice(uuid string) string { return t.o.Cards.CDIDevice(uuid) }
