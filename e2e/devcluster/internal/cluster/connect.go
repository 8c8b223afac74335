package cluster

import (
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/network"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// Connect cables two clusters that are up.
func Connect(a, b layout.Layout) error {
	planA, holderA, err := nodeOf(a)
	if err != nil {
		return err
	}
	planB, holderB, err := nodeOf(b)
	if err != nil {
		return err
	}
	return network.Connect(a, b, planA, planB, holderA, holderB)
}

// nodeOf is a cluster's plan and the pid that keeps its node's room.
func nodeOf(l layout.Layout) (subnet.Plan, int, error) {
	state, err := readState(l)
	if err != nil {
		return subnet.Plan{}, 0, err
	}
	holder, err := room.Pid(l, layout.NodeName)
	return state.Plan, holder, err
}
