package pods

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/topology"
)

// assignment is which cards each container of a pod has, by container name.
type assignment map[string][]string

// cards of the assignment, each once.
func (a assignment) cards() []string {
	var all []string
	for _, uuids := range a {
		all = append(all, uuids...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// allocator gives whole cards to pods and knows who has them. A card is free
// again when its pod's processes have ended, which its owner says by release.
type allocator struct {
	mu    sync.Mutex
	owner map[string]types.UID
	has   map[types.UID]assignment
}

func newAllocator() *allocator {
	return &allocator{owner: map[string]types.UID{}, has: map[types.UID]assignment{}}
}

// claim records what a pod has already.
func (a *allocator) claim(uid types.UID, assigned assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.give(uid, assigned)
}

// give records an assignment. Callers hold mu.
func (a *allocator) give(uid types.UID, assigned assignment) {
	for _, card := range assigned.cards() {
		a.owner[card] = uid
		a.has[uid] = assigned
	}
}

// owners are the pods that have the card, or, for the empty UUID, any.
func (a *allocator) owners(card string) []types.UID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if card == "" {
		return slices.Collect(maps.Keys(a.has))
	}
	if uid, taken := a.owner[card]; taken {
		return []types.UID{uid}
	}
	return nil
}

// assignment is what the pod has. Do not change it.
func (a *allocator) assignment(uid types.UID) assignment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.has[uid]
}

// assign gives the pod the cards that its containers ask for: of the healthy ones
// that are free those which talk to each other best. It gives all or nothing.
func (a *allocator) assign(pod *corev1.Pod, healthy []string, links topology.Map) (assignment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var free []string
	for _, card := range healthy {
		if _, taken := a.owner[card]; !taken {
			free = append(free, card)
		}
	}
	needed := cardsNeeded(pod)
	if needed > len(free) {
		return nil, fmt.Errorf("requested: %d, free: %d, cards: %d", needed, len(free), len(healthy))
	}
	assigned := spread(pod, links.Choose(free, needed))
	a.give(pod.UID, assigned)
	return assigned, nil
}

// release frees all cards of the pod.
func (a *allocator) release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.owner, func(_ string, owner types.UID) bool { return owner == uid })
	delete(a.has, uid)
}

// clear frees all cards.
func (a *allocator) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.owner)
	clear(a.has)
}

func (a *allocator) inUse() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.owner)
}

// cardsNeeded is how many cards the pod has at a time. App containers and sidecars
// have cards of their own; an init container is done before the app containers
// start, so it uses theirs.
func cardsNeeded(pod *corev1.Pod) int {
	own := 0
	for i := range pod.Spec.Containers {
		own += gpusOf(&pod.Spec.Containers[i])
	}
	sidecars, initPeak := 0, 0
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if isSidecar(c) {
			sidecars += gpusOf(c)
		} else {
			initPeak = max(initPeak, gpusOf(c))
		}
	}
	return sidecars + max(own, initPeak)
}

// spread divides cards, as many as are needed, among the pod's containers.
func spread(pod *corev1.Pod, cards []string) assignment {
	assigned := assignment{}
	give := func(c *corev1.Container, from []string) []string {
		n := gpusOf(c)
		if n > 0 {
			assigned[c.Name] = slices.Clone(from[:n])
		}
		return from[n:]
	}
	rest := cards
	for i := range pod.Spec.InitContainers {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			rest = give(&pod.Spec.InitContainers[i], rest)
		}
	}
	for i := range pod.Spec.InitContainers {
		if !isSidecar(&pod.Spec.InitContainers[i]) {
			give(&pod.Spec.InitContainers[i], rest)
		}
	}
	for i := range pod.Spec.Containers {
		rest = give(&pod.Spec.Containers[i], rest)
	}
	return assigned
}

// tooMany is more cards than any machine has. Counts end there, so that sums of what
// API objects ask for stay numbers.
const tooMany = 1 << 20

// gpusOf is how many cards the container asks for: its limit, which the API
// keeps equal to its request.
func gpusOf(c *corev1.Container) int {
	quantity, ok := c.Resources.Limits[contract.GPUResource]
	if !ok {
		quantity = c.Resources.Requests[contract.GPUResource]
	}
	if quantity.CmpInt64(tooMany) > 0 {
		return tooMany
	}
	return max(int(quantity.Value()), 0)
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
