package doctor

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// What the agent keeps from pods is told with the way back, also while none runs; what
// has left the machine is not.
func TestCardsThatAreOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	out := map[string]any{}
	for uuid, class := range map[string]string{"GPU-a": "Replace", "GPU-b": "Drain", "GPU-gone": "Replace"} {
		out[uuid] = map[string]any{"out": true, "class": class, "text": "XID 0 on " + uuid}
	}
	out["GPU-well"] = map[string]any{"out": false, "class": "Reset"}
	b.write(t, b.Config.StateDir.GPUs(), map[string]any{"boot": "b1", "known": map[string]int{"GPU-a": 0, "GPU-b": 1, "GPU-well": 2}, "cards": out})
	var seen []diagnosis.Finding
	for _, f := range b.Examine(context.Background()) {
		if f.ID == "gpus-out" {
			seen = append(seen, f)
		}
	}
	require.Len(t, seen, 2)
	require.Equal(t, "XID 0 on GPU-a", seen[0].What)
	require.Equal(t, "Replace it. If it is well after all:  ainode-agent readmit GPU-a", seen[0].Fix[1])
	require.Equal(t, "no pod gets it: it is out until the machine boots again", seen[1].Why)
	require.Len(t, seen[1].Fix, 1)

	require.NoError(t, os.WriteFile(b.Config.StateDir.GPUs(), []byte("{"), 0o600))
	require.Contains(t, b.see(t, "gpus-out").Why, "gives no card to pods until somebody vouches for it")
}

// How cards get into containers is told by what containerd itself says; without a way,
// what to do.
func TestHowCardsGetIn(t *testing.T) {
	t.Parallel()
	s := &sight{devices: 8}
	s.status.Name, s.status.Version = "containerd", "1.6.20"
	see := func() diagnosis.Finding {
		t.Helper()
		seen := injection(t.Context(), s)
		require.Len(t, seen, 1)
		return seen[0]
	}
	require.Equal(t, Error, see().Severity)
	require.Equal(t, "containerd 1.6.20 has no CDI, or has it turned off, and no runtime handler of NVIDIA's", see().What)
	require.Contains(t, see().Fix[2], "nvidia-ctk runtime configure")
	handlers := &s.status.Containerd.Handlers
	handlers.ByName = map[string]cri.Handler{"nvidia": {Options: map[string]any{"BinaryName": "/usr/bin/nvidia-container-runtime"}}}
	require.Equal(t, "by the runtime handler nvidia and NVIDIA_VISIBLE_DEVICES: containerd 1.6.20 has no CDI, or has it turned off", see().What)
	require.Empty(t, specs(t.Context(), s), "nobody reads a CDI spec")
	s.Config.SimulateGPUs = "dgxh200"
	require.Equal(t, Error, see().Severity, "NVIDIA's program knows real cards alone")
	require.Len(t, see().Fix, 2)
	s.status.Version = "2.4.2"
	require.Equal(t, "by CDI", see().What)
	handlers.Default = "nvidia"
	require.Equal(t, "by CDI; nvidia, the runtime's default, is told to add none", see().What)
	s.Config.SimulateGPUs, s.devices = "", 0
	require.Empty(t, injection(t.Context(), s), "there is nothing to give")
}

func TestCardsForOneProcess(t *testing.T) {
	t.Parallel()
	seen := exclusive(gpu.Found{Cards: []gpu.Card{{Index: 0}, {Index: 3, Exclusive: true}}})
	require.Len(t, seen, 1)
	require.Equal(t, "card 3: its compute mode lets one process at a time use it", seen[0].What)
	require.Equal(t, []string{"Allow more:  nvidia-smi -i 3 -c DEFAULT"}, seen[0].Fix)
}

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
	require.Equal(t, []diagnosis.Severity{Warning, Warning, Warning, OK}, []diagnosis.Severity{seen[0].Severity, seen[1].Severity, seen[2].Severity, seen[3].Severity})
	require.Contains(t, seen[0].Fix[2], "nvidia-smi -i 2 -mig 0")
}
