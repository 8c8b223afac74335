package gpuhealth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
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
}

// reboot forgets what was of an earlier boot.
func (m *memory) reboot(boot string) {
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

// load reads the file; one that can't be understood is none, and said so.
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
	m.Boot = read.Boot
	return m, nil
}

// save writes the file so that a crash leaves the old one or the new one.
func (m memory) save(path string) error {
	raw, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(path+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("remember the GPUs: %w", err)
	}
	return nil
}
