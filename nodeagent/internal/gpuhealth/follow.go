package gpuhealth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

const (
	// lookEvery is how often each card is measured, refreshEvery how often it is
	// looked for others, watchAgain when events are asked for again that broke off.
	lookEvery    = 10 * time.Second
	refreshEvery = time.Minute
	watchAgain   = 10 * time.Second
)

// Run follows the cards until ctx ends.
func (t *Tracker) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { t.followEvents(ctx) })
	both.Go(func() { t.measure(ctx) })
	both.Wait()
}

// followEvents asks the driver for events again whenever that broke off: a card fell
// off the bus, or the driver was replaced.
func (t *Tracker) followEvents(ctx context.Context) {
	for {
		err := t.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "GPU events broke off")
			t.eventsFollowed(err.Error())
			t.refresh(ctx) // what became of the cards
		}
		select {
		case <-ctx.Done():
			return
		case <-t.o.Clock.After(watchAgain):
		}
	}
}

// watch follows the events of the cards that are there now, until others are there.
func (t *Tracker) watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t.mu.Lock()
	t.rewatch = stop
	t.mu.Unlock()
	if len(t.o.Cards.Found().Cards) == 0 {
		t.eventsFollowed("")
		return nil
	}
	return t.o.Cards.Watch(ctx, func() { t.eventsFollowed("") }, t.event)
}

func (t *Tracker) eventsFollowed(problem string) {
	t.mu.Lock()
	changed := t.events != problem
	t.events = problem
	t.mu.Unlock()
	if changed {
		t.o.Changed()
	}
}

func (t *Tracker) measure(ctx context.Context) {
	ticker := t.o.Clock.NewTicker(lookEvery)
	defer ticker.Stop()
	refreshed := t.o.Clock.Now()
	for {
		t.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.again:
		case <-ticker.C():
		}
		if now := t.o.Clock.Now(); t.recut.Swap(false) || now.Sub(refreshed) >= refreshEvery {
			refreshed = now
			t.refresh(ctx)
		}
	}
}

// refresh looks which cards there are, and how they are cut.
func (t *Tracker) refresh(ctx context.Context) {
	before, cards, had := t.Summary(), t.o.Cards.Found().UUIDs(), t.Devices()
	_ = t.o.Cards.Refresh(ctx) // what went wrong stands in Found
	if ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	t.meet()
	if t.rewatch != nil && !slices.Equal(cards, t.o.Cards.Found().UUIDs()) {
		t.rewatch()
	}
	t.mu.Unlock()
	for _, state := range t.States() {
		if _, there := t.o.Cards.Found().Card(state.UUID); !there && state.Slice == nil && state.Class == "" && state.UUID != "" && t.lost(state.UUID) {
			t.fault(Fault{state.UUID, Reset, "Lost", state.UUID + " is lost: the driver lists it no more"})
		}
	}
	for _, d := range had {
		if reason, message := t.removed(d.UUID); message != "" {
			t.o.Faulted(Fault{d.UUID, Recut, reason, message})
		}
	}
	if !reflect.DeepEqual(t.Summary(), before) || !slices.Equal(had, t.Devices()) {
		t.o.Changed()
	}
}

// removed is why a pod that has the device has nothing of it any more: its card, which
// answers, was cut otherwise. Both are empty for others.
func (t *Tracker) removed(uuid string) (reason, message string) {
	found := t.o.Cards.Found()
	if found.Cause != "" {
		return "", ""
	}
	d := t.Device(uuid)
	card, there := found.Card(d.Card)
	switch {
	case !there || slices.ContainsFunc(found.Devices(), func(is topology.Device) bool { return is.UUID == uuid }):
		return "", ""
	case d.Slice():
		return reasonRecut, fmt.Sprintf("%s is no more: the MIG slices of %s were changed", uuid, d.Card)
	default:
		return reasonRecut, fmt.Sprintf("%s is in MIG mode now: it is given in slices, and to nobody as a whole", card.UUID)
	}
}

// reasonRecut is the reason of class Recut.
const reasonRecut = "MIGChanged"

// lost reports whether the driver, which answers, does not list the card at all.
func (t *Tracker) lost(uuid string) bool {
	found := t.o.Cards.Found()
	t.mu.Lock()
	defer t.mu.Unlock()
	return found.Cause == "" && !t.hides(found, uuid) &&
		!slices.ContainsFunc(found.Broken, func(b gpu.Broken) bool { return b.UUID == uuid })
}

// look measures all cards at once, so that a silent one keeps none waiting, and lets
// those come back whose time has come.
func (t *Tracker) look(ctx context.Context) {
	t.readmit()
	found := t.o.Cards.Found()
	if found.Cause != "" {
		return
	}
	var all sync.WaitGroup
	for _, card := range found.Cards {
		all.Go(func() { t.lookAt(ctx, card.UUID, card.UUID) })
		for _, slice := range card.Slices {
			all.Go(func() { t.lookAt(ctx, slice.UUID, card.UUID) })
		}
	}
	all.Wait()
	t.forget(found)
}

// lookAt measures a card, or a slice of it.
func (t *Tracker) lookAt(ctx context.Context, uuid, card string) {
	reading, err := t.o.Cards.Read(ctx, uuid)
	if ctx.Err() != nil {
		return
	}
	now := t.o.Clock.Now()
	t.mu.Lock()
	before := t.trouble[uuid]
	if err != nil {
		t.trouble[uuid] = err.Error()
		delete(t.samples, uuid)
	} else {
		delete(t.trouble, uuid)
		s := Sample{Reading: reading, Busy: t.samples[uuid].Busy}
		// A slice does not tell its use: for how long it was idle nobody knows.
		if use, known := reading[gpu.FieldUtilization]; known && (use > 0 || s.Busy.IsZero()) {
			s.Busy = now
		}
		t.samples[uuid] = s
	}
	r := t.memory.Cards[uuid]
	t.mu.Unlock()

	switch {
	case errors.Is(err, nvml.ERROR_GPU_IS_LOST):
		t.fault(Fault{card, Drain, "Lost", card + " is lost: " + err.Error()})
	case err != nil && before != "": // twice in a row
		t.fault(Fault{uuid, Reset, "Silent", uuid + " can't be read: " + err.Error()})
	case err != nil:
		if uuid != card {
			t.relist()
		}
		t.o.Changed()
	case reading["DCGM_FI_DEV_ROW_REMAP_FAILURE"] > 0 && (!r.Out || r.Class != Replace):
		// NVIDIA GPU Memory Error Management, "RMA policy thresholds for row-remapping":
		// https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/index.html
		t.fault(Fault{uuid, Replace, "RowRemapFailure", uuid + " has no spare rows of memory left"})
	default:
		t.settle(ctx, uuid, card, r)
		if before != "" {
			t.o.Changed()
		}
	}
}

// recoveries are what the driver may ask for before a card can be used again.
var recoveries = map[nvml.DeviceGpuRecoveryAction]struct {
	class Class
	text  string
}{
	nvml.GPU_RECOVERY_ACTION_GPU_RESET:           {Reset, "a reset"},
	nvml.GPU_RECOVERY_ACTION_NODE_REBOOT:         {Drain, "a boot of the machine"},
	nvml.GPU_RECOVERY_ACTION_DRAIN_P2P:           {Reset, "its traffic with other GPUs to end"},
	nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET:     {Reset, "its work to end, and a reset"},
	nvml.GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN: {Reset, "its NVLink domain to be recovered"},
	nvml.GPU_RECOVERY_ACTION_BUS_RESET:           {Reset, "a reset of its bus"},
	nvml.GPU_RECOVERY_ACTION_SYSTEM_REBOOT:       {Drain, "a boot of the machine"},
}

// settle hears what the driver, where it tells, asks of a card that answers, and
// lets the card, or a slice of it, come back of which it asks nothing and whose time has
// come.
func (t *Tracker) settle(ctx context.Context, uuid, card string, r record) {
	action, _, err := t.o.Cards.Recovery(ctx, card)
	if err != nil {
		return
	}
	if needs, ok := recoveries[action]; ok {
		if !r.Out && uuid == card {
			t.fault(Fault{uuid, needs.class, "RecoveryNeeded", "the driver says that " + uuid + " needs " + needs.text})
		}
		return
	}
	t.mu.Lock()
	before := t.memory.Cards[uuid]
	after := before.back(t.o.Clock.Now(), t.o.Boot)
	if before.Out != after.Out {
		t.memory.Cards[uuid] = after
		t.save(true)
	}
	t.mu.Unlock()
	if before.Out != after.Out {
		klog.FromContext(ctx).Info("A GPU is given to pods again", "gpu", uuid, "was", before.Text, "out", after.Back.Sub(before.Since))
		t.o.Changed()
	}
}

// forget drops what is kept of cards that are not there.
func (t *Tracker) forget(found gpu.Found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	there := map[string]bool{}
	for _, c := range found.Cards {
		there[c.UUID] = true
		for _, s := range c.Slices {
			there[s.UUID] = true
		}
	}
	gone := func(uuid string) bool { return !there[uuid] }
	maps.DeleteFunc(t.samples, func(uuid string, _ Sample) bool { return gone(uuid) })
	maps.DeleteFunc(t.trouble, func(uuid string, _ string) bool { return gone(uuid) })
}
