package gpuallocation

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/podtest"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

var testPod, withInit, withSidecar, asking, askingFor = podtest.Pod, podtest.WithInit, podtest.WithSidecar, podtest.Asking, podtest.AskingFor

var usable = podtest.Usable

func testAllocator() *Allocator { return New(podtest.Device) }

func uid(pod *corev1.Pod, uid types.UID) *corev1.Pod { pod.UID = uid; return pod }

func TestAllocator(t *testing.T) {
	t.Parallel()
	cards := usable("GPU-0", "GPU-1", "GPU-2", "GPU-3")
	a := testAllocator()

	got, err := a.Assign(uid(asking(testPod("", "x", "y"), "x", 2), "one"), cards, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, Assignment{"x": {"GPU-0", "GPU-1"}}, got)

	_, err = a.Assign(uid(asking(testPod("", "x"), "x", 3), "two"), cards, topology.Map{})
	require.EqualError(t, err, "requested: 3, free: 2, cards: 4")
	require.Equal(t, 2, a.InUse(), "all or nothing")

	a.Claim("adopted", Assignment{"x": {"GPU-3"}})
	got, err = a.Assign(uid(asking(testPod("", "x"), "x", 1), "three"), cards, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, Assignment{"x": {"GPU-2"}}, got)

	a.Release("one")
	require.Equal(t, 2, a.InUse())
	got, err = a.Assign(uid(testPod("", "x"), "four"), nil, topology.Map{})
	require.NoError(t, err)
	require.Empty(t, got.Devices(), "a pod without GPUs needs none")
}

func TestSpreadSharesInitContainersCards(t *testing.T) {
	t.Parallel()
	pod := withSidecar(withInit(testPod("", "a", "b"), "init"), "side")
	asking(asking(asking(asking(pod, "a", 1), "b", 2), "init", 2), "side", 1)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 4}, devicesNeeded(pod))
	require.Equal(t, Assignment{"side": {"0"}, "init": {"1", "2"}, "a": {"1"}, "b": {"2", "3"}}, spread(pod, map[corev1.ResourceName][]string{contract.GPUResource: {"0", "1", "2", "3"}}))

	asking(pod, "init", 5)
	require.Equal(t, 6, devicesNeeded(pod)[contract.GPUResource])
}

func TestAPodGetsCardsThatTalk(t *testing.T) {
	t.Parallel()
	var links topology.Map
	links.Join("GPU-1", "GPU-3", topology.Link{NVLinks: 2})
	got, err := testAllocator().Assign(asking(testPod("", "x"), "x", 2), usable("GPU-0", "GPU-1", "GPU-2", "GPU-3"), links)
	require.NoError(t, err)
	require.Equal(t, Assignment{"x": {"GPU-1", "GPU-3"}}, got)
}

// Containers that ask for several kinds get each of theirs; all or nothing.
func TestAPodWithCardsAndSlices(t *testing.T) {
	t.Parallel()
	const one, three = corev1.ResourceName("nvidia.com/mig-1g.10gb"), corev1.ResourceName("nvidia.com/mig-3g.40gb")
	devices := usable("GPU-0", "GPU-1_mig-3g.40gb_a", "GPU-1_mig-3g.40gb_b", "GPU-2_mig-1g.10gb_a", "GPU-2_mig-1g.10gb_b", "GPU-2_mig-1g.10gb_c")
	pod := withSidecar(withInit(testPod("", "a", "b"), "init"), "side")
	askingFor(asking(pod, "a", 1), "a", three, 1)
	askingFor(askingFor(pod, "b", three, 1), "side", one, 1)
	askingFor(pod, "init", one, 2)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 1, one: 3, three: 2}, devicesNeeded(pod))
	a := testAllocator()
	got, err := a.Assign(uid(pod, "p"), devices, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, Assignment{
		"side": {"GPU-2_mig-1g.10gb_a"}, "init": {"GPU-2_mig-1g.10gb_b", "GPU-2_mig-1g.10gb_c"},
		"a": {"GPU-0", "GPU-1_mig-3g.40gb_a"}, "b": {"GPU-1_mig-3g.40gb_b"},
	}, got)
	require.Equal(t, 3, a.InUse(), "cards, whole or in slices")
	require.Equal(t, []types.UID{"p"}, a.Owners("GPU-2"), "a fault of a card concerns who has a slice of it")

	_, err = a.Assign(uid(askingFor(testPod("", "x"), "x", one, 1), "q"), devices, topology.Map{})
	require.EqualError(t, err, "requested: 1, free: 0, slices: 3")
}

// Slices fill cards that are in use, so that others stay free to be made whole.
func TestSlicesArePacked(t *testing.T) {
	t.Parallel()
	const one = corev1.ResourceName("nvidia.com/mig-1g.10gb")
	devices := usable("A_mig-1g.10gb_1", "A_mig-1g.10gb_2", "B_mig-1g.10gb_1", "B_mig-1g.10gb_2", "C_mig-1g.10gb_1", "C_mig-3g.40gb_1")
	a := testAllocator()
	next := func(id types.UID, n int64) []string {
		got, err := a.Assign(uid(askingFor(testPod("", "x"), "x", one, n), id), devices, topology.Map{})
		require.NoError(t, err)
		return got["x"]
	}
	require.Equal(t, []string{"C_mig-1g.10gb_1"}, next("p", 1), "the least that is left of a card")
	a.Claim("old", Assignment{"x": {"B_mig-1g.10gb_2"}})
	require.Equal(t, []string{"B_mig-1g.10gb_1", "A_mig-1g.10gb_1"}, next("q", 2), "the card in use first")
}

// What is left of a card that was cut anew goes to nobody while a pod has something of
// it as it was: its container still sees the card.
func TestACardThatWasCutUnderAPod(t *testing.T) {
	t.Parallel()
	const one = corev1.ResourceName("nvidia.com/mig-1g.10gb")
	a := testAllocator()
	a.Claim("p", Assignment{"x": {"GPU-0_mig-1g.10gb_a"}})
	a.Claim("q", Assignment{"x": {"GPU-1"}})
	now := usable("GPU-0", "GPU-1_mig-1g.10gb_a", "GPU-1_mig-1g.10gb_b", "GPU-2")
	_, err := a.Assign(uid(askingFor(testPod("", "x"), "x", one, 1), "r"), now, topology.Map{})
	require.Error(t, err)
	got, err := a.Assign(uid(asking(testPod("", "x"), "x", 1), "r"), now, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, Assignment{"x": {"GPU-2"}}, got)
	counts, cards := a.Withheld(now)
	require.Equal(t, map[corev1.ResourceName]int{contract.GPUResource: 1, one: 2}, counts)
	require.Equal(t, []string{"GPU-0", "GPU-1"}, cards)
	a.Release("q")
	_, err = a.Assign(uid(askingFor(testPod("", "x"), "x", one, 2), "s"), now, topology.Map{})
	require.NoError(t, err)
}

// Whatever comes, goes, falls ill, is cut anew or restarts, and in whatever order: no
// device has two pods, no card has one pod while another has a slice of it, or slices of
// two layouts; and who was refused holds nothing.
func TestNothingHasTwoPods(t *testing.T) {
	t.Parallel()
	const one, three = corev1.ResourceName("nvidia.com/mig-1g.10gb"), corev1.ResourceName("nvidia.com/mig-3g.40gb")
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		layout := func(card, step int) []string {
			name := "GPU-" + strconv.Itoa(card)
			switch cut := strconv.Itoa(step); random.IntN(3) {
			case 0:
				return []string{name + "_mig-1g.10gb_" + cut + "a", name + "_mig-1g.10gb_" + cut + "b", name + "_mig-3g.40gb_" + cut}
			case 1:
				return []string{name + "_mig-3g.40gb_" + cut + "a", name + "_mig-3g.40gb_" + cut + "b"}
			default:
				return []string{name}
			}
		}
		var cards [8][]string
		for i := range cards {
			cards[i] = layout(i, -1)
		}
		a, held := testAllocator(), map[types.UID]Assignment{}
		for step := range 100 {
			switch id := types.UID(strconv.Itoa(step)); random.IntN(7) {
			case 0: // one ends
				for owner := range held {
					a.Release(owner)
					delete(held, owner)
					break
				}
			case 1: // the agent starts again
				a = testAllocator()
				for owner, its := range held {
					a.Claim(owner, its)
				}
			case 2: // somebody cuts a card, whoever has it
				i := random.IntN(len(cards))
				cards[i] = layout(i, step)
			default:
				devices := usable(slices.Concat(cards[:]...)...)
				for i := range devices {
					devices[i].Usable = random.IntN(5) > 0
				}
				pod := uid(asking(asking(testPod("", "x", "y"), "x", random.Int64N(3)), "y", random.Int64N(2)), id)
				askingFor(askingFor(pod, "x", one, random.Int64N(3)), "y", three, random.Int64N(2))
				got, err := a.Assign(pod, devices, topology.Map{})
				if err != nil {
					break
				}
				wanted := map[corev1.ResourceName]int{}
				for _, uuid := range got.Devices() {
					wanted[podtest.Device(uuid).Resource]++
					require.True(t, slices.ContainsFunc(devices, func(d topology.Device) bool { return d.UUID == uuid && d.Usable }))
				}
				needed := devicesNeeded(pod)
				maps.DeleteFunc(needed, func(_ corev1.ResourceName, n int) bool { return n == 0 })
				require.Equal(t, needed, wanted)
				held[id] = got
			}
			owner, forms := map[string]types.UID{}, map[string]string{}
			for id, its := range held {
				for _, uuid := range its.Devices() {
					require.NotContains(t, owner, uuid, "seed %d, step %d", seed, step)
					owner[uuid] = id
					// A slice's layout is the number that ends its name.
					card := podtest.Device(uuid).Card
					form := strings.TrimRight(uuid[max(strings.LastIndex(uuid, "_"), 0):], "ab")
					require.Equal(t, form, cmp.Or(forms[card], form), "seed %d, step %d: %s", seed, step, uuid)
					forms[card] = form
				}
			}
			require.Equal(t, len(forms), a.InUse())
		}
	}
}

// Pods that come at once, each on a goroutine of its own.
func TestNoCardHasTwoPodsAtOnce(t *testing.T) {
	t.Parallel()
	cards := usable("GPU-0", "GPU-1", "GPU-2", "GPU-3")
	a := testAllocator()
	var mu sync.Mutex
	having := map[string]types.UID{}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			pod := uid(asking(testPod("", "x"), "x", int64(1+i%3)), types.UID(strconv.Itoa(i)))
			got, err := a.Assign(pod, cards, topology.Map{})
			if err != nil {
				return
			}
			mu.Lock()
			for _, card := range got.Devices() {
				if other, taken := having[card]; taken {
					t.Errorf("%s is pod %s's and pod %s's", card, other, pod.UID)
				}
				having[card] = pod.UID
			}
			for _, card := range got.Devices() { // it ends
				delete(having, card)
			}
			a.Release(pod.UID)
			mu.Unlock()
		})
	}
	all.Wait()
	require.Zero(t, a.InUse())
}
