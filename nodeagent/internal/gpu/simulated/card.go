// Package simulated is what a simulated card looks like from inside a container: a
// small file that names it. The agent writes such files and the simulated
// nvidia-smi reads them. It needs neither cgo nor a driver.
package simulated

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	// Dir is where, in a container, the files of the cards lie that it was given.
	Dir = "/run/ainode/simulated-gpus"
	// Env names, in a container, the machine that is simulated.
	Env = "AINODE_SIMULATED_GPUS"
)

// Card is one simulated card.
type Card struct {
	UUID string `json:"uuid"`
	// Index among the machine's cards.
	Index       int    `json:"index"`
	Product     string `json:"product"`
	MemoryBytes uint64 `json:"memoryBytes"`
	// ComputeCapability, for example "9.0".
	ComputeCapability string `json:"computeCapability"`
	// Machine that is simulated, for example "dgxh200".
	Machine       string `json:"machine"`
	DriverVersion string `json:"driverVersion"`
	CUDAVersion   string `json:"cudaVersion"`
	// Slice is what of the card a container was given, if not the whole.
	Slice *Slice `json:"slice,omitempty"`
}

// Slice is a MIG slice of a simulated card.
type Slice struct {
	UUID string `json:"uuid"`
	// Profile in NVIDIA's words, for example 1g.10gb.
	Profile string `json:"profile"`
	// Index among the card's slices.
	Index       int    `json:"index"`
	MemoryBytes uint64 `json:"memoryBytes"`
}

// Extension ends the names of the files of cards and slices, which begin with the UUID.
const Extension = ".json"

// File is the name of the card's, or the slice's, file in a directory of cards.
func (c Card) File() string {
	if c.Slice != nil {
		return c.Slice.UUID + Extension
	}
	return c.UUID + Extension
}

// place orders the slices of a card, before which comes the whole.
func (c Card) place() int {
	if c.Slice == nil {
		return -1
	}
	return c.Slice.Index
}

// Write writes the card's file into directory, which must exist, so that a reader
// sees the old one or the new one.
func (c Card) Write(directory string) error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode simulated card %q: %w", c.UUID, err)
	}
	path := filepath.Join(directory, c.File())
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o644); err != nil { // any user of a container reads it
		return fmt.Errorf("write simulated card %q: %w", c.UUID, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write simulated card %q: %w", c.UUID, err)
	}
	return nil
}

// Read reads the cards in directory, in the machine's order; none if there is no
// such directory.
func Read(directory string) ([]Card, error) {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list simulated cards: %w", err)
	}
	var cards []Card
	for _, e := range entries {
		if filepath.Ext(e.Name()) != Extension {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(directory, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read simulated card %q: %w", e.Name(), err)
		}
		var card Card
		if err := json.Unmarshal(raw, &card); err != nil {
			return nil, fmt.Errorf("read simulated card %q: %w", e.Name(), err)
		}
		cards = append(cards, card)
	}
	slices.SortFunc(cards, func(a, b Card) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.place(), b.place()))
	})
	return cards, nil
}
