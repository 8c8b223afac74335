// Package checkpoint keeps on disk what the agent must know of its pods before the API
// answers, one small file per pod.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/statefile"
)

// Checkpoint is what the agent must know of an admitted pod before the API
// answers: its object, with the resources that it has been granted, and its cards
// where no container carries them yet.
type Checkpoint struct {
	Pod   *corev1.Pod              `json:"pod"`
	Cards gpuallocation.Assignment `json:"cards,omitempty"`
	// Services are the variables of Services, as they were when this was written; nil if
	// they were not known.
	Services map[string]string `json:"services,omitzero"`
	// StopSince is when its deletion began to be obeyed; its grace counts from there,
	// whoever looks after it meanwhile. Zero before.
	StopSince time.Time `json:"stopSince,omitzero"`
	// Dead says that nothing of the pod lives and what it held is free; what is left are
	// volumes. Verdict is then what ended it, if anything did.
	Dead    bool               `json:"dead,omitempty"`
	Verdict *podstatus.Verdict `json:"verdict,omitempty"`
	// Epoch that the binding which admitted it began in.
	Epoch int64 `json:"epoch"`
}

// Store keeps one file per pod, DIR/UID.json. The object may hold secrets in
// plain env values, so nobody else can read it.
type Store struct{ Dir string }

func (c Store) path(uid types.UID) string { return filepath.Join(c.Dir, string(uid)+".json") }

// Save remembers the pod.
func (c Store) Save(uid types.UID, point Checkpoint) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of remembered pods: %w", err)
	}
	data, err := json.Marshal(point)
	if err != nil {
		return fmt.Errorf("encode pod %q: %w", uid, err)
	}
	if err := statefile.Write(c.path(uid), data, 0o600); err != nil {
		return fmt.Errorf("remember pod %q: %w", uid, err)
	}
	return nil
}

// Clear forgets every pod, readable or not.
func (c Store) Clear() error {
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("forget all pods: %w", err)
	}
	return nil
}

// Load reads all files; those that cannot be read are returned as one error
// beside the others.
func (c Store) Load() (map[types.UID]Checkpoint, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the remembered pods: %w", err)
	}
	points, bad := map[types.UID]Checkpoint{}, []error(nil)
	for _, entry := range entries {
		uid, isPoint := strings.CutSuffix(entry.Name(), ".json")
		if !isPoint {
			continue
		}
		var point Checkpoint
		data, err := os.ReadFile(filepath.Join(c.Dir, entry.Name()))
		if err == nil {
			err = json.Unmarshal(data, &point)
		}
		if err == nil && (point.Pod == nil || string(point.Pod.UID) != uid) {
			err = errors.New("it holds another pod")
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("read remembered pod %q: %w", uid, err))
			continue
		}
		points[types.UID(uid)] = point
	}
	return points, errors.Join(bad...)
}

// Remove forgets the pod.
func (c Store) Remove(uid types.UID) error {
	if err := statefile.Remove(c.path(uid)); err != nil {
		return fmt.Errorf("forget pod %q: %w", uid, err)
	}
	return nil
}
