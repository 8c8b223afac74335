package gpuhealth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/statefile"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// memory is what outlives the agent.
type memory struct {
	// Boot in which the cards Known were seen: a card that goes missing until the
	// next one is lost; after it, the machine is as it is.
	Boot  string            `json:"boot"`
	Known map[string]int    `json:"known"` // index by UUID
	Cards map[string]record `json:"cards"` // and slices
	// Cut are the slices that each card in MIG mode had when it could be read last, and
	// Slices all that there were in this boot: a container may still hold one.
	Cut    map[string][]gpu.Slice     `json:"cut,omitempty"`
	Slices map[string]topology.Device `json:"slices,omitempty"`
	// Damage says that what was remembered before can't be read: of no card that is met
	// for the first time is it known whether it was to be replaced.
	Damage string `json:"damage,omitempty"`
}

// reboot forgets what was of an earlier boot, the damage once cards were met.
func (m *memory) reboot(boot string) {
	if len(m.Known) > 0 {
		m.Damage = ""
	}
	m.Boot, m.Known = boot, map[string]int{}
	m.Cut, m.Slices = map[string][]gpu.Slice{}, map[string]topology.Device{}
}

// meet remembers the cards, and reports whether one is new, or cut otherwise.
func (m *memory) meet(cards []gpu.Card) (changed bool) {
	for _, c := range cards {
		if index, known := m.Known[c.UUID]; !known || index != c.Index {
			m.Known[c.UUID], changed = c.Index, true
		}
		if had, cut := m.Cut[c.UUID]; cut != c.MIG || !slices.Equal(had, c.Slices) {
			changed = true
		}
		if c.MIG {
			m.Cut[c.UUID] = c.Slices
		} else {
			delete(m.Cut, c.UUID)
		}
		for _, s := range c.Slices {
			m.Slices[s.UUID] = topology.Device{UUID: s.UUID, Card: c.UUID, Resource: s.Resource()}
		}
	}
	return changed
}

// keepOut has the cards stay out of which nobody knows whether they were out, until
// somebody vouches for each.
func (m *memory) keepOut(cards []gpu.Card, now time.Time) {
	if m.Damage == "" {
		return
	}
	for _, c := range cards {
		if _, judged := m.Cards[c.UUID]; !judged { // for one that somebody vouched for there is a record
			m.Cards[c.UUID] = record{}.fault(now, m.Boot, Fault{c.UUID, Replace, "StateDamaged", "nobody knows whether " + c.UUID + " was to be replaced: " + m.Damage})
		}
	}
}

// load reads the file; one that can't be read is none, and an error.
func load(path string) (memory, error) {
	m := memory{Cards: map[string]record{}}
	m.reboot("")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read what is remembered of the GPUs: %w", err)
	}
	var read memory
	if err := json.Unmarshal(raw, &read); err != nil {
		return m, fmt.Errorf("read what is remembered of the GPUs: %w", err)
	}
	if read.Known != nil {
		m.Known = read.Known
	}
	if read.Cards != nil {
		m.Cards = read.Cards
	}
	if read.Cut != nil {
		m.Cut = read.Cut
	}
	if read.Slices != nil {
		m.Slices = read.Slices
	}
	m.Boot, m.Damage = read.Boot, read.Damage
	return m, nil
}

func (m memory) save(path string) error {
	raw, err := json.Marshal(m)
	if err == nil {
		err = statefile.Write(path, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the GPUs: %w", err)
	}
	return nil
}
