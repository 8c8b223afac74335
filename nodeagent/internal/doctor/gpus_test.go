package doctor

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

func TestHowCardsAreCut(t *testing.T) {
	t.Parallel()
	require.Empty(t, slicing(gpu.Found{Cards: []gpu.Card{{UUID: "GPU-a"}}}), "nothing to say of MIG")
	seen := slicing(gpu.Found{Cards: []gpu.Card{
		{Index: 0},
		{Index: 1, MIG: true, Slices: []gpu.Slice{{Profile: "1g.10gb"}, {Profile: "1g.10gb+me"}, {Profile: "1g.10gb"}}},
		{Index: 2, MIG: true},
		{Index: 3, MIGPending: true},
		{Index: 4, MIG: true, MIGPending: true, Slices: []gpu.Slice{{Profile: "7g.80gb"}}},
	}})
	var said []string
	for _, f := range seen {
		said = append(said, f.What)
	}
	require.Equal(t, []string{
		"card 2 is in MIG mode and has no slices",
		"card 3: MIG mode is to be turned on, and is not yet",
		"card 4: MIG mode is to be turned off, and is not yet",
		"3 in MIG mode, which pods ask for as 2 × nvidia.com/mig-1g.10gb, 1 × nvidia.com/mig-1g.10gb.me, 1 × nvidia.com/mig-7g.80gb; 2 whole, as nvidia.com/gpu",
	}, said)
	require.Equal(t, []Severity{Warning, Warning, Warning, OK}, []Severity{seen[0].Severity, seen[1].Severity, seen[2].Severity, seen[3].Severity})
	require.Contains(t, seen[0].Fix[2], "nvidia-smi -i 2 -mig 0")
}
