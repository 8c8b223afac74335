package gpuhealth

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// A card that is to be replaced comes back where somebody says so, after its probation.
func TestACardThatSomebodyVouchesFor(t *testing.T) {
	t.Parallel()
	cards := newCards(2)
	w := newFakeWard(t, cards)
	w.event(gpu.Event{UUID: "GPU-0", Kind: gpu.XIDError, XID: 54})
	w.clock.Step(1000 * time.Hour)
	w.look(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable(), "time alone does not bring it back")
	require.Contains(t, w.Summary().Message, "until somebody types on the machine: ainode-agent readmit GPU-0", "whoever reads the Node is told what to do")

	out, err := Readmit(w.path, "GPU-0", w.clock.Now())
	require.NoError(t, err)
	require.Equal(t, "XID 54 on GPU-0: auxiliary power is not connected to the GPU board", out.Text)
	changes := w.changes
	w.look(t.Context())
	require.Greater(t, w.changes, changes, "the Node tells it before its time")
	require.Equal(t, []string{"GPU-1"}, w.usable())
	require.Contains(t, w.Trouble("GPU-0"), "vouched for by hand since); out until it was quiet for 10m0s")
	require.NoFileExists(t, filepath.Join(requests(w.path), "GPU-0"), "a word counts once")

	// The probation outlives the agent, and the driver still has its say.
	w = newWard(t, cards, w.path, "b1", w.clock)
	cards.set(func() { cards.actions["GPU-0"] = nvml.GPU_RECOVERY_ACTION_GPU_RESET })
	w.clock.Step(probation)
	w.look(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable())
	cards.set(func() { cards.actions["GPU-0"] = nvml.GPU_RECOVERY_ACTION_NONE })
	w.look(t.Context())
	require.Equal(t, []string{"GPU-0", "GPU-1"}, w.usable())

	// What befalls it then takes it out again, for longer.
	w.event(gpu.Event{UUID: "GPU-0", Kind: gpu.XIDError, XID: 54})
	require.Equal(t, []string{"GPU-1"}, w.usable())
	require.Contains(t, w.Trouble("GPU-0"), "out until it is replaced")
	_, err = Readmit(w.path, "GPU-0", w.clock.Now())
	require.NoError(t, err)
	w.look(t.Context())
	w.event(gpu.Event{UUID: "GPU-0", Kind: gpu.XIDError, XID: 142})
	w.clock.Step(longestProbation)
	w.look(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable(), "also during its probation")
	require.Contains(t, w.Trouble("GPU-0"), "XID 142 on GPU-0")
}

// A card whose memory has no spare rows says so itself: nobody's word helps.
func TestACardThatIsStillBroken(t *testing.T) {
	t.Parallel()
	cards := newCards(1)
	w := newFakeWard(t, cards)
	cards.set(func() { cards.readings["GPU-0"] = gpu.Reading{"DCGM_FI_DEV_ROW_REMAP_FAILURE": 1} })
	w.look(t.Context())
	_, err := Readmit(w.path, "GPU-0", w.clock.Now())
	require.NoError(t, err)
	w.look(t.Context())
	w.clock.Step(longestProbation)
	w.look(t.Context())
	require.Empty(t, w.usable())
	require.Contains(t, w.Trouble("GPU-0"), "out until it is replaced")
}

func TestWhoCanNotBeVouchedFor(t *testing.T) {
	t.Parallel()
	w := newFakeWard(t, newCards(3))
	_, err := Readmit(w.path, "GPU-0", w.clock.Now())
	require.EqualError(t, err, `"GPU-0" is no GPU or MIG slice that is kept from pods; none is`)
	w.event(gpu.Event{UUID: "GPU-1", Kind: gpu.XIDError, XID: 79})
	w.event(gpu.Event{UUID: "GPU-2", Kind: gpu.XIDError, XID: 142})
	_, err = Readmit(w.path, "../GPU-2", w.clock.Now())
	require.ErrorContains(t, err, "these are:\n  GPU-1  XID 79 on GPU-1: GPU has fallen off the bus; out until the machine boots again\n  GPU-2  XID 142")
	_, err = Readmit(w.path, "GPU-1", w.clock.Now())
	require.EqualError(t, err, "GPU-1 comes back by itself: out until the machine boots again")

	// A word from before its last error says nothing of that one.
	before := w.clock.Now()
	w.clock.Step(time.Second)
	w.event(gpu.Event{UUID: "GPU-2", Kind: gpu.XIDError, XID: 142})
	_, err = Readmit(w.path, "GPU-2", before)
	require.NoError(t, err)
	w.look(t.Context())
	require.Contains(t, w.Trouble("GPU-2"), "out until it is replaced")
	// Nor does one that can't be read, and it is not read for ever.
	require.NoError(t, os.WriteFile(filepath.Join(requests(w.path), "GPU-2"), []byte("now"), 0o600))
	w.look(t.Context())
	require.Contains(t, w.Trouble("GPU-2"), "out until it is replaced")
	require.NoFileExists(t, filepath.Join(requests(w.path), "GPU-2"))
}
