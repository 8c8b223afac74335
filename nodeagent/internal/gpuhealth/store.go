package gpuhealth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// memory is what outlives the agent.
type memory struct {
	// Boot in which the cards Known were seen: a card that goes missing until the
	// next one is lost; after it, the machine is as it is.
	Boot  string            `json:"boot"`
	Known map[string]int    `json:"known"` // index by UUID
	Cards map[string]record `json:"cards"`
}

// load reads the file; one that can't be understood is none, and said so.
func load(path string) (memory, error) {
	m := memory{Known: map[string]int{}, Cards: map[string]record{}}
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
