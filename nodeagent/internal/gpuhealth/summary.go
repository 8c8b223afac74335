package gpuhealth

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// Summary is how the cards are all together, as a Node's condition says it.
type Summary struct {
	// Total counts what the machine has, or had since it booted: whole cards, and slices
	// by their kind; Usable what of it pods may have. Both always count cards.
	Total, Usable map[corev1.ResourceName]int
	// OK is false if a card or slice is out, or none can be found; Unsure says that
	// faults would not be noticed.
	OK, Unsure      bool
	Reason, Message string
}

// Summary of all cards and slices.
func (t *Tracker) Summary() Summary {
	states, found := t.States(), t.o.Cards.Found()
	s := Summary{Total: map[corev1.ResourceName]int{contract.GPUResource: 0}, Usable: map[corev1.ResourceName]int{contract.GPUResource: 0}}
	var out, pending, exclusive []string
	bad, card := 0, "" // card is the trouble of the one that slices follow
	for _, state := range states {
		counts := state.Slice != nil || !state.MIG
		if counts {
			s.Total[state.Resource()]++
		}
		if state.Slice == nil {
			card = state.Trouble
			if state.MIGPending {
				pending = append(pending, state.UUID)
			}
			if state.Exclusive {
				exclusive = append(exclusive, state.UUID)
			}
		}
		if state.Trouble == "" {
			if counts {
				s.Usable[state.Resource()]++
			}
			continue
		}
		bad++
		switch {
		case state.Slice == nil:
			out = append(out, fmt.Sprintf("%s (index %d): %s", cmp.Or(state.UUID, "GPU"), state.Index, state.Trouble))
		case card == "": // else the card tells it for all
			out = append(out, fmt.Sprintf("%s (%s of index %d): %s", state.Slice.UUID, state.Slice.Profile, state.Index, state.Trouble))
		}
	}
	t.mu.Lock()
	events := t.events
	t.mu.Unlock()
	switch {
	case found.Cause != "":
		s.Reason, s.Message = "DriverNotUsable", found.Cause
	case len(out) > 0:
		s.Reason = "GPUsOut"
		s.Message = fmt.Sprintf("%d of %s can't be used: %s", bad, t.things(len(states)-sliceCount(states), sliceCount(states)), strings.Join(out, "; "))
	case events != "":
		s.Unsure, s.Reason, s.Message = true, "EventsNotFollowed", "errors of the GPUs would not be noticed: "+events
	default:
		usable := 0
		for _, n := range s.Usable {
			usable += n
		}
		s.OK, s.Reason = true, "GPUsUsable"
		s.Message = t.things(s.Usable[contract.GPUResource], usable-s.Usable[contract.GPUResource]) + " can be used"
	}
	if len(pending) > 0 && found.Cause == "" {
		s.Message += "; MIG mode changes when it is reset: " + strings.Join(pending, ", ")
	}
	if len(exclusive) > 0 && found.Cause == "" {
		s.Message += "; one process at a time may use " + strings.Join(exclusive, ", ") + " (nvidia-smi -c DEFAULT allows more)"
	}
	return s
}

// things are so many cards and slices, in words.
func (t *Tracker) things(cards, slices int) string {
	kind := "GPUs"
	if t.o.Cards.Simulated() != "" {
		kind = "simulated GPUs"
	}
	text := fmt.Sprintf("%d %s", cards, kind)
	if slices > 0 {
		text += fmt.Sprintf(" and %d MIG slices", slices)
	}
	return text
}

func sliceCount(states []State) int {
	n := 0
	for _, s := range states {
		if s.Slice != nil {
			n++
		}
	}
	return n
}
