package gpuhealth

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// State is how one card is.
type State struct {
	gpu.Card
	// Trouble is why pods do not get the card; empty if they do.
	Trouble string
	// Class of the trouble, where it has one.
	Class Class
	// LastXID is 0 if there was none since the agent started.
	LastXID uint64
	Sample  Sample
}

// States are all cards of this boot, in index order: those that are there, those
// that can't be used, and those that were there and are gone.
func (t *Tracker) States() []State {
	found := t.o.Cards.Found()
	t.mu.Lock()
	defer t.mu.Unlock()
	var states []State
	add := func(card gpu.Card, trouble string) {
		r := t.memory.Cards[card.UUID]
		s := State{Card: card, Trouble: trouble, LastXID: t.lastXID[card.UUID], Sample: t.samples[card.UUID]}
		if r.Out {
			s.Trouble, s.Class = r.Text+"; "+r.until(), r.Class
		}
		if s.Trouble == "" {
			s.Trouble = t.trouble[card.UUID]
		}
		if s.Trouble == "" && found.Cause != "" {
			s.Trouble = found.Cause
		}
		states = append(states, s)
	}
	there := map[string]bool{}
	for _, c := range found.Cards {
		there[c.UUID] = true
		add(c, "")
	}
	for _, b := range found.Broken {
		there[b.UUID] = true
		add(gpu.Card{UUID: b.UUID, Index: b.Index}, b.Cause)
	}
	for _, uuid := range slices.Sorted(maps.Keys(t.memory.Known)) {
		if there[uuid] || t.hides(found, uuid) {
			continue
		}
		add(gpu.Card{UUID: uuid, Index: t.memory.Known[uuid]}, "it was there when the machine had booted, and the driver lists it no more")
	}
	slices.SortStableFunc(states, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
	})
	return states
}

// hides reports whether a broken card that does not tell its UUID stands where this
// one stood. Callers hold mu.
func (t *Tracker) hides(found gpu.Found, uuid string) bool {
	return slices.ContainsFunc(found.Broken, func(b gpu.Broken) bool {
		return b.UUID == "" && b.Index == t.memory.Known[uuid]
	})
}

// Trouble is why pods do not get the card; empty if they do, or if nobody knows it.
func (t *Tracker) Trouble(uuid string) string {
	for _, s := range t.States() {
		if s.UUID == uuid {
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

// Failed is what befell a card that is out for it: one word, and a text that names
// the card. Both are empty for others, also where the driver is silent for a moment.
func (t *Tracker) Failed(uuid string) (reason, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.memory.Cards[uuid]; r.Out {
		return r.Reason, r.Text
	}
	return "", ""
}

// Summary is how the cards are all together, as a Node's condition says it.
type Summary struct {
	// Total counts the cards that the machine has, or had since it booted; Usable
	// those that pods may have.
	Total, Usable int
	// OK is false if a card is out, or none can be found; Unsure says that faults
	// would not be noticed.
	OK, Unsure      bool
	Reason, Message string
}

// Summary of all cards.
func (t *Tracker) Summary() Summary {
	states, found := t.States(), t.o.Cards.Found()
	s := Summary{Total: len(states)}
	var out []string
	for _, card := range states {
		if card.Trouble == "" {
			s.Usable++
			continue
		}
		out = append(out, fmt.Sprintf("%s (index %d): %s", cmp.Or(card.UUID, "GPU"), card.Index, card.Trouble))
	}
	kind := "GPUs"
	if t.o.Cards.Simulated() != "" {
		kind = "simulated GPUs"
	}
	t.mu.Lock()
	events := t.events
	t.mu.Unlock()
	switch {
	case found.Cause != "":
		s.Reason, s.Message = "DriverNotUsable", found.Cause
	case len(out) > 0:
		s.Reason = "GPUsOut"
		s.Message = fmt.Sprintf("%d of %d %s can't be used: %s", len(out), len(states), kind, strings.Join(out, "; "))
	case events != "":
		s.Unsure, s.Reason, s.Message = true, "EventsNotFollowed", "errors of the GPUs would not be noticed: "+events
	default:
		s.OK, s.Reason, s.Message = true, "GPUsUsable", fmt.Sprintf("%d %s can be used", s.Usable, kind)
	}
	return s
}
