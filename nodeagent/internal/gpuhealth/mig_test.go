package gpuhealth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

const oneG = corev1.ResourceName("nvidia.com/mig-1g.10gb")

// sliced are three cards, the second of which is cut into the slices MIG-….
func sliced(names ...string) *fakeCards {
	c := newCards(3)
	c.found.Cards[1].MIG = true
	for i, name := range names {
		c.found.Cards[1].Slices = append(c.found.Cards[1].Slices, gpu.Slice{UUID: "MIG-" + name, Profile: "1g.10gb", Index: i, GPUInstance: 7 + i})
	}
	return c
}

// recut is what the machine is when its second card has those slices.
func recut(names ...string) *gpu.Found { return &sliced(names...).found }

// What the driver ascribes to one instance takes that one, where it has the engine for
// itself; what befalls memory takes the card with all its slices.
func TestAFaultOfOneSlice(t *testing.T) {
	t.Parallel()
	cards := sliced("a", "b")
	w := newFakeWard(t, cards)
	require.Equal(t, []string{"GPU-0", "MIG-a", "MIG-b", "GPU-2"}, w.usable())
	event := func(xid uint64) gpu.Event {
		return gpu.Event{UUID: "GPU-1", Slices: []string{"MIG-b"}, Kind: gpu.XIDError, XID: xid}
	}
	w.event(event(13))
	require.Len(t, w.usable(), 4, "an error of the application")
	w.event(event(109))
	require.Equal(t, []string{"GPU-0", "MIG-a", "GPU-2"}, w.usable())
	require.Equal(t, "XID 109 on MIG-b: context switch timeout", w.told()[1].Message)
	reason, message := w.Failed("MIG-b")
	require.Equal(t, "XID109: XID 109 on MIG-b: context switch timeout", reason+": "+message)
	_, message = w.Failed("MIG-a")
	require.Empty(t, message)
	s := w.Summary()
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 2, oneG: 2}, s.Total)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 2, oneG: 1}, s.Usable)
	require.Contains(t, s.Message, "1 of 3 GPUs and 2 MIG slices can't be used: MIG-b (1g.10gb of index 1): XID 109")
	w.clock.Step(probation)
	w.look(t.Context())
	require.Len(t, w.usable(), 4, "it comes back like a card")

	w.event(event(48))
	require.Equal(t, []string{"GPU-0", "GPU-2"}, w.usable())
	_, message = w.Failed("MIG-a")
	require.Equal(t, "XID 48 on GPU-1: double-bit ECC error", message)
	require.Contains(t, w.Summary().Message, "3 of 3 GPUs and 2 MIG slices can't be used: GPU-1 (index 1): XID 48")
	require.NotContains(t, w.Summary().Message, "MIG-", "the card tells it for all")
	require.Equal(t, 2, w.Summary().Total[oneG])
	for _, s := range w.States()[2:4] {
		require.Equal(t, Reset, s.Class)
	}
}

// A layout changed under running pods: who may hold a slice is told, others take its
// place, and it is no fault of the machine.
func TestACardThatIsCutAnew(t *testing.T) {
	t.Parallel()
	cards := sliced("a", "b")
	w := newFakeWard(t, cards)
	cards.set(func() { cards.next = recut("b", "c") })
	w.refresh(t.Context())
	require.Equal(t, []Fault{{"MIG-a", Recut, "MIGChanged", "MIG-a is no more: the MIG slices of GPU-1 were changed"}}, w.told())
	require.Empty(t, w.Counters())
	require.Equal(t, []string{"GPU-0", "MIG-b", "MIG-c", "GPU-2"}, w.usable())
	require.True(t, w.Summary().OK)
	require.Equal(t, "2 GPUs and 2 MIG slices can be used", w.Summary().Message)
	require.Equal(t, 1, w.changes)

	cards.set(func() { cards.next = recut() })
	w.refresh(t.Context())
	require.Len(t, w.told(), 3)
	require.Contains(t, w.Summary().Message, "GPU-1 (index 1): it is in MIG mode and has no slices; cut it: nvidia-smi mig -i 1 -cgi")
	require.Zero(t, w.Summary().Total[oneG])

	cards.set(func() { cards.next = &newCards(3).found })
	w.refresh(t.Context())
	require.Equal(t, []string{"GPU-0", "GPU-1", "GPU-2"}, w.usable())
	again := newWard(t, cards, w.path, "b1", w.clock)
	require.Equal(t, topology.Device{UUID: "MIG-a", Card: "GPU-1", Resource: oneG}, again.Device("MIG-a"), "whose it was is remembered as long as a container may have it")
	reason, _ := again.Failed("MIG-a")
	require.Equal(t, "MIGChanged", reason)
	require.Contains(t, again.Trouble("MIG-a"), "is no more")

	cards.set(func() { cards.next = recut("a") })
	again.refresh(t.Context())
	_, message := again.Failed("MIG-a")
	require.Empty(t, message, "the same slice is there again")
	require.Equal(t, "GPU-1 is in MIG mode now: it is given in slices, and to nobody as a whole", again.Trouble("GPU-1"))
	require.Equal(t, []string{"GPU-1 is in MIG mode now: it is given in slices, and to nobody as a whole"}, again.said())
}

// Slices of a card that is lost, or can't be read, stay what the machine has; the
// driver being silent for a moment tells nobody that his slice is gone.
func TestSlicesOfACardThatIsLost(t *testing.T) {
	t.Parallel()
	cards := sliced("a", "b")
	w := newFakeWard(t, cards)
	lost := recut("a", "b")
	lost.Cards = append(lost.Cards[:1:1], lost.Cards[2])
	cards.set(func() { cards.next = lost })
	w.refresh(t.Context())
	require.Equal(t, []string{"GPU-1 is lost: the driver lists it no more"}, w.said())
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 2, oneG: 2}, w.Summary().Total)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 2}, w.Summary().Usable)
	cards.set(func() { cards.next = &gpu.Found{Cards: recut("x").Cards, Cause: "the driver does not answer"} })
	again := newWard(t, cards, filepath.Join(t.TempDir(), "gpus.json"), "b1", w.clock)
	again.refresh(t.Context())
	require.Empty(t, again.told())
}

// A slice that can't be read makes the cards be listed anew before it counts as silent.
func TestASliceThatCanNotBeRead(t *testing.T) {
	t.Parallel()
	cards := sliced("a", "b")
	cards.err["MIG-a"] = nvml.ERROR_NOT_FOUND
	cards.next = recut("b")
	w := newFakeWard(t, cards)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.measure(ctx); close(ended) }()
	require.Eventually(t, func() bool { return len(w.told()) > 0 }, time.Minute, time.Millisecond, "the clock stands still")
	cancel()
	<-ended
	require.Equal(t, []string{"MIG-a is no more: the MIG slices of GPU-1 were changed"}, w.said())

	silent := sliced("a", "b")
	silent.err["MIG-a"] = errors.New("no answer")
	w = newFakeWard(t, silent)
	w.look(t.Context())
	w.look(t.Context())
	require.Equal(t, []string{"GPU-0", "MIG-b", "GPU-2"}, w.usable())
	require.Contains(t, w.said()[0], "MIG-a can't be read: no answer")
	require.Zero(t, w.States()[2].Sample.Busy, "nobody knows for how long a slice was idle")
}

// The real room gpu on NVIDIA's own mock, cut by a line in the file of faults.
func TestASimulatedMachineThatIsCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	machine, err := gpu.Open(gpu.Options{Simulate: "dgxh100", SimulateMIG: "0:3g.40gb,3g.40gb;1:1g.10gb*7", MachineID: "m", CDIDir: dir, StateDir: dir, NvidiaSMI: smi})
	require.NoError(t, err)
	w := newWard(t, machine, filepath.Join(dir, "gpus.json"), "b1", clock.RealClock{})
	require.Equal(t, "6 simulated GPUs and 9 MIG slices can be used", w.Summary().Message)
	ill := machine.Found().Cards[1].Slices[4].UUID
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "faults"), []byte(ill+" 46\nmig 1:1g.10gb*7;2:7g.80gb\n"), 0o600))
	require.Eventually(t, func() bool { return w.Summary().Total["nvidia.com/mig-7g.80gb"] == 1 }, 2*time.Minute, 5*time.Millisecond)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 6, oneG: 6, "nvidia.com/mig-7g.80gb": 1}, w.Summary().Usable)
	require.Equal(t, 7, w.Summary().Total[oneG])
	require.Eventually(t, func() bool { return len(w.told()) == 4 }, time.Minute, time.Millisecond, "one failed; two and a whole card are no more: %v", w.said())
}
