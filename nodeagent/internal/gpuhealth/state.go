package gpuhealth

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// State is how one card is, or one MIG slice of a card.
type State struct {
	gpu.Card
	// Slice of the card that it is about; nil for the card itself.
	Slice *gpu.Slice
	// Trouble is why pods do not get it; empty if they do.
	Trouble string
	// Class of the trouble, where it has one.
	Class Class
	// LastXID is 0 if there was none since the agent started.
	LastXID uint64
	Sample  Sample
}

// ID is the UUID of the slice, or of the card.
func (s State) ID() string {
	if s.Slice != nil {
		return s.Slice.UUID
	}
	return s.UUID
}

// Resource is what it is counted as.
func (s State) Resource() corev1.ResourceName {
	if s.Slice != nil {
		return s.Slice.Resource()
	}
	return contract.GPUResource
}

// States are all cards of this boot, in index order, each before its slices: those that
// are there, those that can't be used, and those that were there and are gone.
func (t *Tracker) States() []State {
	found := t.o.Cards.Found()
	t.mu.Lock()
	defer t.mu.Unlock()
	var states []State
	add := func(card gpu.Card, trouble string) {
		whole := t.state(State{Card: card}, trouble, found)
		states = append(states, whole)
		for _, slice := range card.Slices {
			// What ails the card ails its slices.
			states = append(states, t.state(State{Card: card, Slice: &slice, Class: whole.Class}, whole.Trouble, found))
		}
	}
	there := map[string]bool{}
	for _, c := range found.Cards {
		there[c.UUID] = true
		add(c, uncut(c))
	}
	for _, b := range found.Broken {
		there[b.UUID] = true
		cut, mig := t.memory.Cut[b.UUID]
		add(gpu.Card{UUID: b.UUID, Index: b.Index, MIG: mig || b.MIG, Slices: cut}, b.Cause)
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.memory.Known)) {
		if there[uuid] || t.hides(found, uuid) {
			continue
		}
		cut, mig := t.memory.Cut[uuid]
		add(gpu.Card{UUID: uuid, Index: t.memory.Known[uuid], MIG: mig, Slices: cut}, "it was there when the machine had booted, and the driver lists it no more")
	}
	slices.SortStableFunc(states, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
	})
	return states
}

// state completes what is known of a card or slice. Callers hold mu.
func (t *Tracker) state(s State, trouble string, found gpu.Found) State {
	r := t.memory.Cards[s.ID()]
	s.Trouble, s.LastXID, s.Sample = trouble, t.lastXID[s.ID()], t.samples[s.ID()]
	if r.Out && (s.Slice == nil || s.Class == "") {
		s.Trouble, s.Class = r.Text+"; "+r.until(s.ID()), r.Class
	}
	if s.Trouble == "" {
		s.Trouble = t.trouble[s.ID()]
	}
	if s.Trouble == "" && found.Cause != "" {
		s.Trouble = found.Cause
	}
	return s
}

// uncut is what is to be done about a card in MIG mode that nobody has cut.
func uncut(c gpu.Card) string {
	if !c.MIG || len(c.Slices) > 0 {
		return ""
	}
	return fmt.Sprintf("it is in MIG mode and has no slices; cut it: nvidia-smi mig -i %d -cgi PROFILE,… -C, or make it whole: nvidia-smi -i %d -mig 0", c.Index, c.Index)
}

// hides reports whether a broken card that does not tell its UUID stands where this
// one stood. Callers hold mu.
func (t *Tracker) hides(found gpu.Found, uuid string) bool {
	return slices.ContainsFunc(found.Broken, func(b gpu.Broken) bool {
		return b.UUID == "" && b.Index == t.memory.Known[uuid]
	})
}

// Trouble is why pods do not get the card or slice; empty if they do, or if nobody
// knows it.
func (t *Tracker) Trouble(uuid string) string {
	if _, message := t.removed(uuid); message != "" {
		return message
	}
	for _, s := range t.States() {
		if s.ID() == uuid {
			return s.Trouble
		}
	}
	return ""
}

// Counters are how often what befell which card, since the agent started.
func (t *Tracker) Counters() map[Count]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counters)
}

// Failed is what befell a card or slice that is out for it, or is no more: one word,
// and a text that names it. Both are empty for others, also where the driver is silent
// for a moment.
func (t *Tracker) Failed(uuid string) (reason, message string) {
	for _, id := range []string{uuid, t.Device(uuid).Card} {
		t.mu.Lock()
		r := t.memory.Cards[id]
		t.mu.Unlock()
		if r.Out {
			return r.Reason, r.Text
		}
	}
	return t.removed(uuid)
}
