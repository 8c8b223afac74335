package gpuhealth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/gpu"
)

// fakeCards is a machine whose cards do as they are told.
type fakeCards struct {
	mu       sync.Mutex
	found    gpu.Found
	next     *gpu.Found // what the next refresh finds
	err      map[string]error
	readings map[string]gpu.Reading
	actions  map[string]nvml.DeviceGpuRecoveryAction
	watched  chan func(gpu.Event)
	broken   chan error
}

func newCards(n int) *fakeCards {
	c := &fakeCards{
		err: map[string]error{}, readings: map[string]gpu.Reading{}, actions: map[string]nvml.DeviceGpuRecoveryAction{},
		watched: make(chan func(gpu.Event)), broken: make(chan error),
	}
	for i := range n {
		c.found.Cards = append(c.found.Cards, gpu.Card{UUID: fmt.Sprintf("GPU-%d", i), Index: i})
	}
	return c
}

func (c *fakeCards) Found() gpu.Found {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found
}
func (c *fakeCards) Simulated() string             { return "" }
func (c *fakeCards) CDIDevice(uuid string) string  { return "ainode.dev/gpu=" + uuid }
func (c *fakeCards) NodeLabels() map[string]string { return nil }
func (c *fakeCards) Refresh(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		c.found = *c.next
	}
	return nil
}
func (c *fakeCards) Read(_ context.Context, uuid string) (gpu.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readings[uuid], c.err[uuid]
}
func (c *fakeCards) Recovery(_ context.Context, uuid string) (nvml.DeviceGpuRecoveryAction, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.actions[uuid], true, nil
}
func (c *fakeCards) Watch(ctx context.Context, began func(), seen func(gpu.Event)) error {
	began()
	select {
	case c.watched <- seen:
	case <-ctx.Done():
		return nil
	}
	select {
	case err := <-c.broken:
		return err
	case <-ctx.Done():
		return nil
	}
}

// set changes the machine.
func (c *fakeCards) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

type ward struct {
	*Tracker
	clock   *testclock.FakeClock
	path    string
	mu      sync.Mutex
	faults  []Fault
	changes int
}

func newWard(t *testing.T, cards Cards, path, boot string, c clock.WithTicker) *ward {
	t.Helper()
	w := &ward{path: path}
	w.clock, _ = c.(*testclock.FakeClock)
	var err error
	w.Tracker, err = New(Options{
		Cards: cards, Clock: c, Path: path, Boot: boot,
		Faulted: func(f Fault) { w.mu.Lock(); defer w.mu.Unlock(); w.faults = append(w.faults, f) },
		Changed: func() { w.mu.Lock(); defer w.mu.Unlock(); w.changes++ },
	})
	require.NoError(t, err)
	return w
}

func newFakeWard(t *testing.T, cards Cards) *ward {
	return newWard(t, cards, filepath.Join(t.TempDir(), "gpus.json"), "b1", testclock.NewFakeClock(start))
}

func counted(cards int) map[corev1.ResourceName]int {
	return map[corev1.ResourceName]int{contract.GPUResource: cards}
}

// usable are the cards and slices that pods may have.
func (w *ward) usable() []string {
	var uuids []string
	for _, d := range w.Devices() {
		if d.Usable {
			uuids = append(uuids, d.UUID)
		}
	}
	return uuids
}

func (w *ward) told() []Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.faults)
}

func (w *ward) said() []string {
	var messages []string
	for _, f := range w.told() {
		messages = append(messages, f.Message)
	}
	return messages
}

// The real room gpu on NVIDIA's own mock: a storm of errors on one card of eight.
func TestAStormOnOneCardOfEight(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	smi := filepath.Join(dir, "smi")
	require.NoError(t, os.WriteFile(smi, nil, 0o755))
	machine, err := gpu.Open(gpu.Options{Simulate: "dgxh100", MachineID: "m", CDIDir: dir, StateDir: dir, NvidiaSMI: smi})
	require.NoError(t, err)
	w := newWard(t, machine, filepath.Join(dir, "gpus.json"), "b1", clock.RealClock{})
	all := w.usable()
	require.Len(t, all, 8)
	ill := all[3]
	const storm = 5000
	require.NoError(t, os.WriteFile(filepath.Join(dir, "faults"), []byte(strings.Repeat(ill+" 13\n"+ill+" 79\n", storm)), 0o600))

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	defer func() { cancel(); running.Wait() }()
	require.Eventually(t, func() bool {
		return w.Counters()[Count{ill, "XID79", Drain}] == storm && w.Counters()[Count{ill, "XID13", Application}] == storm
	}, 2*time.Minute, 5*time.Millisecond, "every error is counted")

	require.Equal(t, slices.DeleteFunc(slices.Clone(all), func(u string) bool { return u == ill }), w.usable(), "seven go on")
	require.Len(t, w.told(), 2, "and each error is told once: %v", w.said())
	require.Equal(t, "XID 79 on "+ill+": GPU has fallen off the bus", w.told()[1].Message)
	s := w.Summary()
	require.Equal(t, Summary{
		Total: counted(8), Usable: counted(7), Reason: "GPUsOut", Message: "1 of 8 simulated GPUs can't be used: " + ill +
			" (index 3): XID 79 on " + ill + ": GPU has fallen off the bus; out until the machine boots again",
	}, s)
}

func TestAnErrorOfTheApplicationTakesNoCard(t *testing.T) {
	t.Parallel()
	w := newFakeWard(t, newCards(8))
	w.event(gpu.Event{UUID: "GPU-1", Kind: gpu.XIDError, XID: 31})
	w.event(gpu.Event{UUID: "GPU-1", Kind: gpu.ClockChange})
	require.Len(t, w.usable(), 8)
	require.Len(t, w.told(), 1)
	require.Equal(t, Application, w.told()[0].Class)
	require.EqualValues(t, 31, w.States()[1].LastXID)
	require.True(t, w.Summary().OK)
	require.EqualValues(t, 1, w.Counters()[Count{"GPU-1", "Clock", Application}])
}

func TestACardIsOutAndComesBack(t *testing.T) {
	t.Parallel()
	cards := newCards(2)
	w := newFakeWard(t, cards)
	w.event(gpu.Event{UUID: "GPU-0", Kind: gpu.DoubleBitError})
	require.Equal(t, []string{"GPU-1"}, w.usable())
	require.Contains(t, w.Trouble("GPU-0"), "out until it was quiet for 10m0s")

	// Neither a restart of the agent nor time alone brings it back.
	w = newWard(t, cards, w.path, "b1", w.clock)
	require.Equal(t, []string{"GPU-1"}, w.usable())
	w.clock.Step(probation - time.Second)
	w.look(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable())
	w.clock.Step(time.Second)
	cards.set(func() { cards.actions["GPU-0"] = nvml.GPU_RECOVERY_ACTION_GPU_RESET })
	w.look(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable(), "the driver says that it was not reset")
	cards.set(func() { cards.actions["GPU-0"] = nvml.GPU_RECOVERY_ACTION_NONE })
	changes := w.changes
	w.look(t.Context())
	require.Equal(t, []string{"GPU-0", "GPU-1"}, w.usable())
	require.Greater(t, w.changes, changes)
	require.True(t, newWard(t, cards, w.path, "b1", w.clock).Summary().OK)
}

func TestTheDriversOwnWord(t *testing.T) {
	t.Parallel()
	cards := newCards(2)
	w := newFakeWard(t, cards)
	cards.set(func() { cards.actions["GPU-1"] = nvml.GPU_RECOVERY_ACTION_NODE_REBOOT })
	w.event(gpu.Event{UUID: "GPU-1", Kind: gpu.XIDError, XID: 154})
	require.Len(t, w.again, 1, "the card is looked at before its time")
	w.look(t.Context())
	w.look(t.Context())
	require.Equal(t, []string{"GPU-0"}, w.usable())
	require.Contains(t, w.said(), "the driver says that GPU-1 needs a boot of the machine")
	require.EqualValues(t, 1, w.Counters()[Count{"GPU-1", "RecoveryNeeded", Drain}])
	cards.set(func() { cards.readings["GPU-0"] = gpu.Reading{"DCGM_FI_DEV_ROW_REMAP_FAILURE": 1} })
	w.look(t.Context())
	w.look(t.Context())
	require.Empty(t, w.usable())
	require.Contains(t, w.Trouble("GPU-0"), "out until it is replaced, or")
	require.EqualValues(t, 1, w.Counters()[Count{"GPU-0", "RowRemapFailure", Replace}])
}

func TestCardsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	cards := newCards(3)
	w := newFakeWard(t, cards)
	w.look(t.Context())
	cards.set(func() {
		cards.err["GPU-0"] = gpu.ErrSilent
		cards.err["GPU-1"] = fmt.Errorf("measure it: %w", nvml.ERROR_GPU_IS_LOST)
	})
	w.look(t.Context())
	require.Equal(t, []string{"GPU-2"}, w.usable())
	require.Len(t, w.told(), 1, "one silence may be nothing")
	require.Equal(t, Drain, w.told()[0].Class)
	cards.set(func() { clear(cards.err) })
	w.look(t.Context())
	require.Equal(t, []string{"GPU-0", "GPU-2"}, w.usable())
	cards.set(func() { cards.err["GPU-0"] = gpu.ErrSilent })
	w.look(t.Context())
	w.look(t.Context())
	require.Equal(t, "GPU-0 can't be read: the driver does not answer", w.told()[1].Message)
	cards.set(func() { clear(cards.err) })
	w.look(t.Context())
	require.Equal(t, []string{"GPU-2"}, w.usable(), "its probation")

	cards.set(func() { cards.found.Cause = "the driver does not answer" })
	require.Empty(t, w.usable())
	down := w.Summary()
	require.False(t, down.OK || down.Unsure)
	require.Equal(t, "DriverNotUsable: the driver does not answer", down.Reason+": "+down.Message)
	require.Equal(t, 3, down.Total[contract.GPUResource])
	require.Zero(t, down.Usable[contract.GPUResource])
}

func TestALostCardIsNotForgotten(t *testing.T) {
	t.Parallel()
	cards := newCards(3)
	w := newFakeWard(t, cards)
	seven := gpu.Found{Cards: slices.Clone(cards.found.Cards[:2])}
	cards.next = &seven
	w.refresh(t.Context())
	require.Equal(t, []string{"GPU-0", "GPU-1"}, w.usable())
	require.Equal(t, []string{"GPU-2 is lost: the driver lists it no more"}, w.said())
	require.Equal(t, 3, w.Summary().Total[contract.GPUResource])
	require.Contains(t, w.Summary().Message, "GPU-2 (index 2): GPU-2 is lost")
	require.Equal(t, 3, newWard(t, cards, w.path, "b1", w.clock).Summary().Total[contract.GPUResource], "nor by a restart of the agent")
	require.Equal(t, 2, newWard(t, cards, w.path, "b2", w.clock).Summary().Total[contract.GPUResource], "after a boot the machine is as it is")

	// A card that tells nothing but its place stands for the one that was there.
	broken := gpu.Found{Cards: seven.Cards, Broken: []gpu.Broken{{Index: 2, Cause: "open it: ERROR_GPU_IS_LOST"}}}
	cards.next = &broken
	w.refresh(t.Context())
	require.Equal(t, 3, w.Summary().Total[contract.GPUResource])
	require.Contains(t, w.Summary().Message, "GPU (index 2): open it")
}

func TestEventsAreFollowedAgain(t *testing.T) {
	t.Parallel()
	cards := newCards(2)
	w := newFakeWard(t, cards)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.followEvents(ctx) })
	defer func() { cancel(); running.Wait() }()
	<-cards.watched
	cards.broken <- errors.New("broke off")
	require.Eventually(t, func() bool { return w.Summary().Unsure }, time.Minute, time.Millisecond)
	require.Contains(t, w.Summary().Message, "would not be noticed: broke off")
	require.Eventually(t, w.clock.HasWaiters, time.Minute, time.Millisecond)
	w.clock.Step(watchAgain)
	seen := <-cards.watched
	require.True(t, w.Summary().OK)
	seen(gpu.Event{Kind: gpu.XIDError, XID: 79})
	require.Equal(t, []string{"XID 79 on a GPU that the driver does not name: GPU has fallen off the bus"}, w.said())
	require.Len(t, w.usable(), 2, "which one it is, the next look tells")
	require.Len(t, w.again, 1)

	three := gpu.Found{Cards: slices.Concat(cards.found.Cards, []gpu.Card{{UUID: "GPU-2", Index: 2}})}
	cards.next = &three
	w.refresh(ctx)
	require.Eventually(t, w.clock.HasWaiters, time.Minute, time.Millisecond)
	w.clock.Step(watchAgain)
	<-cards.watched // of the new card too
	require.Len(t, w.usable(), 3)
}

func TestACardForOneProcessIsTold(t *testing.T) {
	t.Parallel()
	cards := newCards(2)
	cards.found.Cards[1].Exclusive = true
	w := newFakeWard(t, cards)
	require.True(t, w.Summary().OK)
	require.Equal(t, "2 GPUs can be used; one process at a time may use GPU-1 (nvidia-smi -c DEFAULT allows more)", w.Summary().Message)
}

func TestIdleSince(t *testing.T) {
	t.Parallel()
	cards := newCards(1)
	w := newFakeWard(t, cards)
	w.look(t.Context())
	for _, use := range []float64{50, 0, 0} {
		w.clock.Step(lookEvery)
		cards.set(func() { cards.readings["GPU-0"] = gpu.Reading{gpu.FieldUtilization: use} })
		w.look(t.Context())
	}
	require.Equal(t, start.Add(lookEvery), w.States()[0].Sample.Busy)
}

// Where nobody knows any more which cards were to be replaced, none is given away until
// somebody who does know says so; the Node tells why, and what to type.
func TestADamagedFileBringsNoCardBack(t *testing.T) {
	t.Parallel()
	for _, junk := range []string{"", `{"boot":`, "\x00\x00"} {
		cards := newCards(2)
		w := newFakeWard(t, cards)
		w.event(gpu.Event{UUID: "GPU-0", Kind: gpu.XIDError, XID: 54})
		require.NoError(t, os.WriteFile(w.path, []byte(junk), 0o600))

		w = newWard(t, cards, w.path, "b1", w.clock)
		require.Empty(t, w.usable(), "%q", junk)
		require.Equal(t, "GPUsOut", w.Summary().Reason)
		require.Contains(t, w.Summary().Message, "GPU-0 (index 0): nobody knows whether GPU-0 was to be replaced: read what is remembered of the GPUs")
		require.Contains(t, w.Summary().Message, "(kept as "+w.path+".damaged)")
		require.Contains(t, w.Summary().Message, "ainode-agent readmit GPU-1")
		kept, err := os.ReadFile(w.path + ".damaged")
		require.NoError(t, err)
		require.Equal(t, junk, string(kept))

		// Neither time nor another start of agent or machine is somebody's word.
		w.clock.Step(longestProbation)
		w.look(t.Context())
		w = newWard(t, cards, w.path, "b1", w.clock)
		w = newWard(t, cards, w.path, "b2", w.clock)
		require.Empty(t, w.usable())
		_, err = Readmit(w.path, "GPU-1", w.clock.Now())
		require.NoError(t, err)
		w.look(t.Context())
		w.clock.Step(probation)
		w.look(t.Context())
		require.Equal(t, []string{"GPU-1"}, w.usable())
		require.Equal(t, []string{"GPU-1"}, newWard(t, cards, w.path, "b3", w.clock).usable(), "its word is kept")
	}
}

// The driver may have been silent when the file was found to be damaged.
func TestACardThatIsMetAfterTheDamage(t *testing.T) {
	t.Parallel()
	cards := newCards(0)
	path := filepath.Join(t.TempDir(), "gpus.json")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	newWard(t, cards, path, "b1", testclock.NewFakeClock(start))
	w := newWard(t, cards, path, "b2", testclock.NewFakeClock(start))
	cards.next = &newCards(1).found
	w.refresh(t.Context())
	require.Empty(t, w.usable())

	// Once cards were met and the machine has booted, one that is new is new.
	cards.next = &newCards(2).found
	w = newWard(t, cards, path, "b3", w.clock)
	w.refresh(t.Context())
	require.Equal(t, []string{"GPU-1"}, w.usable())
}
