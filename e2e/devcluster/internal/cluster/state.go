// Package cluster puts the parts together: up, down, status, and images.
package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// State is what was decided for a cluster. It is written before anything is
// made from it.
type State struct {
	Plan     subnet.Plan `json:"plan"`
	Machines int         `json:"machines"`
	Complete bool        `json:"complete"` // `up` reached its end
	// NetnsDir tells that this machine used named network namespaces before.
	NetnsDir bool `json:"netnsDir"`
}

func readState(l layout.Layout) (State, error) {
	var state State
	data, err := os.ReadFile(l.StateFile())
	if err != nil {
		return state, fmt.Errorf("there is no cluster in %s: start one with `devcluster up --dir %s`", l.Dir, l.Dir)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return state, fmt.Errorf("reading %s: %w: `devcluster down --dir %s` cleans up without it", l.StateFile(), err, l.Dir)
	}
	return state, nil
}

func (s State) write(l layout.Layout) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary := l.StateFile() + ".new"
	if err := os.WriteFile(temporary, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	return os.Rename(temporary, l.StateFile())
}

// rooms lists the node and the machines.
func (s State) rooms() []string {
	rooms := []string{layout.NodeName}
	for i := 1; i <= s.Machines; i++ {
		rooms = append(rooms, layout.MachineName(i))
	}
	return rooms
}

// lock keeps two commands from changing one cluster at the same time. The
// kernel drops it when the command ends, however it ends.
func lock(l layout.Layout) (release func(), err error) {
	file, err := os.OpenFile(l.Path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", l.Dir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another devcluster command is changing %s right now: wait for it to end", l.Dir)
	}
	return func() { _ = file.Close() }, nil
}
