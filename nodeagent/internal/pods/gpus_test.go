package pods

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// asking gives the pod's container that many GPUs.
func asking(pod *corev1.Pod, container string, gpus int64) *corev1.Pod {
	c := findContainer(pod, container)
	list := corev1.ResourceList{contract.GPUResource: *resource.NewQuantity(gpus, resource.DecimalSI)}
	c.Resources = corev1.ResourceRequirements{Limits: list, Requests: list}
	return pod
}

func uid(pod *corev1.Pod, uid types.UID) *corev1.Pod { pod.UID = uid; return pod }

func TestAllocator(t *testing.T) {
	t.Parallel()
	cards := []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
	a := newAllocator()

	got, err := a.assign(uid(asking(testPod("", "x", "y"), "x", 2), "one"), cards, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, assignment{"x": {"GPU-0", "GPU-1"}}, got)

	_, err = a.assign(uid(asking(testPod("", "x"), "x", 3), "two"), cards, topology.Map{})
	require.EqualError(t, err, "requested: 3, free: 2, cards: 4")
	require.Equal(t, 2, a.inUse(), "all or nothing")

	a.claim("adopted", assignment{"x": {"GPU-3"}})
	got, err = a.assign(uid(asking(testPod("", "x"), "x", 1), "three"), cards, topology.Map{})
	require.NoError(t, err)
	require.Equal(t, assignment{"x": {"GPU-2"}}, got)

	a.release("one")
	require.Equal(t, 2, a.inUse())
	got, err = a.assign(uid(testPod("", "x"), "four"), nil, topology.Map{})
	require.NoError(t, err)
	require.Empty(t, got.cards(), "a pod without GPUs needs none")
}

func TestSpreadSharesInitContainersCards(t *testing.T) {
	t.Parallel()
	pod := withSidecar(withInit(testPod("", "a", "b"), "init"), "side")
	asking(asking(asking(asking(pod, "a", 1), "b", 2), "init", 2), "side", 1)
	require.Equal(t, 4, cardsNeeded(pod))
	require.Equal(t, assignment{"side": {"0"}, "init": {"1", "2"}, "a": {"1"}, "b": {"2", "3"}}, spread(pod, []string{"0", "1", "2", "3"}))

	asking(pod, "init", 5)
	require.Equal(t, 6, cardsNeeded(pod))
}

func TestAPodGetsCardsThatTalk(t *testing.T) {
	t.Parallel()
	var links topology.Map
	links.Join("GPU-1", "GPU-3", topology.Link{NVLinks: 2})
	got, err := newAllocator().assign(asking(testPod("", "x"), "x", 2), []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3"}, links)
	require.NoError(t, err)
	require.Equal(t, assignment{"x": {"GPU-1", "GPU-3"}}, got)
}

// Whatever comes, goes, falls ill or restarts, and in whatever order: no card has two
// pods, and who was refused holds none.
func TestNoCardHasTwoPods(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		var cards []string
		for i := range 8 {
			cards = append(cards, "GPU-"+strconv.Itoa(i))
		}
		a, held := newAllocator(), map[types.UID]assignment{}
		for step := range 100 {
			switch id := types.UID(strconv.Itoa(step)); random.IntN(6) {
			case 0: // one ends
				for owner := range held {
					a.release(owner)
					delete(held, owner)
					break
				}
			case 1: // the agent starts again
				a = newAllocator()
				for owner, its := range held {
					a.claim(owner, its)
				}
			default:
				healthy := slices.DeleteFunc(slices.Clone(cards), func(string) bool { return random.IntN(5) == 0 })
				pod := uid(asking(asking(testPod("", "x", "y"), "x", random.Int64N(4)), "y", random.Int64N(3)), id)
				got, err := a.assign(pod, healthy, topology.Map{})
				if err != nil {
					require.Greater(t, cardsNeeded(pod), 0)
					break
				}
				require.Len(t, got.cards(), cardsNeeded(pod))
				require.Subset(t, healthy, got.cards())
				held[id] = got
			}
			var all []string
			for _, its := range held {
				all = append(all, its.cards()...)
			}
			require.Equal(t, len(all), a.inUse())
			slices.Sort(all)
			require.Len(t, slices.Compact(all), a.inUse(), "seed %d, step %d", seed, step)
		}
	}
}

// Pods that come at once, each on a goroutine of its own.
func TestNoCardHasTwoPodsAtOnce(t *testing.T) {
	t.Parallel()
	cards := []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
	a := newAllocator()
	var mu sync.Mutex
	having := map[string]types.UID{}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			pod := uid(asking(testPod("", "x"), "x", int64(1+i%3)), types.UID(strconv.Itoa(i)))
			got, err := a.assign(pod, cards, topology.Map{})
			if err != nil {
				return
			}
			mu.Lock()
			for _, card := range got.cards() {
				if other, taken := having[card]; taken {
					t.Errorf("%s is pod %s's and pod %s's", card, other, pod.UID)
				}
				having[card] = pod.UID
			}
			for _, card := range got.cards() { // it ends
				delete(having, card)
			}
			a.release(pod.UID)
			mu.Unlock()
		})
	}
	all.Wait()
	require.Zero(t, a.inUse())
}

func TestAmountsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, amount := range []string{"9000000000000000000", "5E18", "1e30"} {
		for _, name := range []corev1.ResourceName{contract.GPUResource, corev1.ResourceMemory, corev1.ResourceCPU} {
			pod := testPod("", "a", "b")
			for i := range pod.Spec.Containers {
				all := corev1.ResourceList{name: resource.MustParse(amount)}
				pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{Limits: all, Requests: all}
			}
			verdict := admit(pod, testNode(), nil, true, nil)
			require.NotNil(t, verdict, "two containers of %s %s", amount, name)
			require.Equal(t, "OutOf"+string(name), verdict.Reason)
			asked := resource.MustParse(amount)
			asked.Add(resource.MustParse(amount))
			require.Contains(t, verdict.Message, "requested: "+asked.String()+",")
			if name == contract.GPUResource {
				_, err := newAllocator().assign(pod, []string{"GPU-0"}, topology.Map{})
				require.Error(t, err)
			}
		}
	}
}
