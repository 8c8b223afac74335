package binding

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// ErrOtherMachine says that a disk is of another machine.
var ErrOtherMachine = errors.New("this disk is of another machine")

// SameMachine fails on a machine that has this state from the disk of another one. The
// Lease tells two of them apart only while both run: once the other one's agent was
// silent for a while, a copy would start pods whose containers still live there.
// Whoever joins anew is believed, unless a binding is stored.
func (s Store) SameMachine(node string, now machine.Hardware) error {
	path := s.State.Hardware()
	var was machine.Hardware
	if err := readJSON(path, &was); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read which machine this is (if it is AI node %q: rm %s): %w", node, path, err)
	}
	if was.Other(now) {
		return fmt.Errorf("%w: AI node %q is machine %s, this one is %s. On a copy, start over: "+
			"rm -r %s, and join under a name of its own (kubectl ainode add NAME). If this is %q with other hardware: rm %s",
			ErrOtherMachine, node, was, now, string(s.State), node, path)
	}
	if known := was.With(now); !reflect.DeepEqual(known, was) {
		return writeJSON(path, known)
	}
	return nil
}
