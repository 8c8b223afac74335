package gpuhealth

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// Outcast is a card or slice that pods do not get.
type Outcast struct {
	UUID  string
	Class Class
	// Text is what befell it, and Until what it waits for.
	Text, Until string
	// Gone says that the agent has not seen it since the machine booted: most likely it
	// was replaced.
	Gone bool
}

// Outcasts are what the agent that remembers at path keeps from pods, by UUID. No agent
// needs to run.
func Outcasts(path string) ([]Outcast, error) {
	m, err := load(path)
	if err != nil {
		return nil, err
	}
	var all []Outcast
	for _, uuid := range slices.Sorted(maps.Keys(m.Cards)) {
		if r := m.Cards[uuid]; r.Out {
			_, card := m.Known[uuid]
			_, slice := m.Slices[uuid]
			all = append(all, Outcast{uuid, r.Class, r.Text, r.until(uuid), !card && !slice})
		}
	}
	return all, nil
}

// requests is where people leave the names of cards that they vouch for.
func requests(path string) string { return path + ".readmit" }

// Readmit has the agent that remembers at path take back the verdict that a card or slice
// is to be replaced; it may be one that is not running. The card is then on probation like one that was
// reset, and another error takes it out again. Those that come back by themselves, and
// those that nobody took out, are an error.
func Readmit(path, uuid string, now time.Time) (Outcast, error) {
	out, err := Outcasts(path)
	if err != nil {
		return Outcast{}, err
	}
	i := slices.IndexFunc(out, func(o Outcast) bool { return o.UUID == uuid })
	if i < 0 {
		return Outcast{}, fmt.Errorf("%q is no GPU or MIG slice that is kept from pods; %s", uuid, listed(out))
	}
	if out[i].Class != Replace {
		return Outcast{}, fmt.Errorf("%s comes back by itself: %s", uuid, out[i].Until)
	}
	if err := os.MkdirAll(requests(path), 0o700); err != nil {
		return Outcast{}, fmt.Errorf("leave word for the agent: %w", err)
	}
	if err := statefile.Write(filepath.Join(requests(path), uuid), []byte(now.Format(time.RFC3339Nano)), 0o600); err != nil {
		return Outcast{}, fmt.Errorf("leave word for the agent: %w", err)
	}
	return out[i], nil
}

func listed(out []Outcast) string {
	if len(out) == 0 {
		return "none is"
	}
	text := "these are:"
	for _, o := range out {
		text += fmt.Sprintf("\n  %s  %s; %s", o.UUID, o.Text, o.Until)
	}
	return text
}

// readmit does what people asked for.
func (t *Tracker) readmit() {
	folder := requests(t.o.Path)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		klog.Background().Error(err, "nobody hears which GPUs people vouch for")
	}
	for _, entry := range entries {
		uuid, file := entry.Name(), filepath.Join(folder, entry.Name())
		if statefile.Unfinished(uuid) {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			klog.Background().Error(err, "a GPU that somebody vouches for stays out", "gpu", uuid)
			continue
		}
		asked, err := time.Parse(time.RFC3339Nano, string(raw))
		if err != nil {
			klog.Background().Error(err, "a GPU that somebody vouches for stays out", "gpu", uuid)
		} else {
			t.vouched(uuid, asked)
		}
		if err := os.Remove(file); err != nil {
			klog.Background().Error(err, "somebody's word for a GPU will be taken again", "gpu", uuid)
		}
	}
}

// vouched puts a card on probation of which somebody said, at that time, that it is well.
func (t *Tracker) vouched(uuid string, asked time.Time) {
	t.mu.Lock()
	before := t.memory.Cards[uuid]
	after := before.vouch(asked)
	changed := before != after
	if changed {
		t.memory.Cards[uuid] = after
		t.save(true)
	}
	t.mu.Unlock()
	if changed {
		klog.Background().Info("A GPU is on probation by hand", "gpu", uuid, "was", before.Text)
		t.o.Changed()
	}
}
