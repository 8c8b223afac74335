package pods

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/plan"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// reasonGPUFault ends a pod that would have to go on with a card that failed.
const reasonGPUFault = "GPUFault"

// CardFault tells the pods that have the card or slice, or a slice of the card, what
// befell it: fault with an event of the card's, otherwise one of the application's. It does
// not wait.
func (m *Manager) CardFault(uuid, message string, fault bool) {
	reason := eventGPUError
	if fault {
		reason = eventGPUFault
	}
	for _, w := range m.havingCards(uuid) {
		if pod := w.object(); pod != nil {
			w.event(podRef(pod), corev1.EventTypeWarning, reason, message)
		}
		w.look()
	}
}

// CardsChanged makes the pods that have cards look how those are. It does not wait.
func (m *Manager) CardsChanged() {
	for _, w := range m.havingCards("") {
		w.look()
	}
}

// Withheld counts what is usable and given to no pod: one still has a slice, or the
// whole, of a card that was cut otherwise since. It names the cards, too.
func (m *Manager) Withheld() (counts map[corev1.ResourceName]int, cards []string) {
	return m.gpus.Withheld(m.o.Cards.Devices())
}

// Devices are the UUIDs of the cards and slices that the pod's containers have, by
// container name. Do not change them.
func (m *Manager) Devices(uid types.UID) map[string][]string { return m.gpus.Assignment(uid) }

// Owner is the pod that has the card or slice, and its container: where an init container has
// it before, the one that has it then. ok is false for a free card, and for a moment
// after the agent's start for one whose pod is not known yet.
func (m *Manager) Owner(uuid string) (pod types.NamespacedName, container string, ok bool) {
	for _, w := range m.havingCards(uuid) {
		w.mu.Lock()
		object := w.pod
		w.mu.Unlock()
		if object == nil {
			continue
		}
		assigned := m.gpus.Assignment(w.uid)
		if !slices.Contains(assigned.Devices(), uuid) {
			continue // it has a slice of the card
		}
		for _, list := range [][]corev1.Container{object.Spec.InitContainers, object.Spec.Containers} {
			for i := range list {
				if slices.Contains(assigned[list[i].Name], uuid) {
					container = list[i].Name
				}
			}
		}
		return types.NamespacedName{Namespace: object.Namespace, Name: object.Name}, container, true
	}
	return types.NamespacedName{}, "", false
}

// havingCards are the workers of the pods that have the card or slice, or a slice of
// the card, or, for the empty UUID, any.
func (m *Manager) havingCards(uuid string) []*worker {
	owners := m.gpus.Owners(uuid)
	m.mu.Lock()
	defer m.mu.Unlock()
	var workers []*worker
	for _, uid := range owners {
		if w, ok := m.workers[uid]; ok {
			workers = append(workers, w)
		}
	}
	return workers
}

// fallen is the verdict on a pod that could only go on with a card that failed: one
// of its containers would have to be started on it, or ended in error and had it. A
// container that still runs is left to itself: it may have survived.
func (w *worker) fallen(t *task) *podstatus.Verdict {
	if w.dead || w.verdict != nil || t.deleting() || podstatus.Terminal(t.pod.Status.Phase) {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(w.cards)) {
		_, waits := t.plan.Waiting[name]
		starts := slices.ContainsFunc(t.plan.Start, func(s plan.Starting) bool { return s.Name == name })
		if !waits && !starts && !endedInError(t, name) {
			continue
		}
		for _, card := range w.cards[name] {
			if _, message := w.m.o.Cards.Failed(card); message != "" {
				return &podstatus.Verdict{Reason: reasonGPUFault, Message: message}
			}
		}
	}
	return nil
}

// endedInError reports whether the container's newest instance did.
func endedInError(t *task, name string) bool {
	for _, c := range t.actual.Containers { // newest first
		if c.GetMetadata().GetName() == name {
			return c.State == runtimeapi.ContainerState_CONTAINER_EXITED && c.ExitCode != 0
		}
	}
	return false
}

// health is how the pod's cards are, for its status. Of a dead pod nothing more is told:
// its cards may be another's by now.
func (w *worker) health() (cards map[string][]podstatus.Card, fault *podstatus.Fault) {
	if w.dead {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(w.cards)) {
		for _, uuid := range w.cards[name] {
			if cards == nil {
				cards = map[string][]podstatus.Card{}
			}
			cards[name] = append(cards[name], podstatus.Card{
				UUID: uuid, Resource: w.m.o.Cards.Device(uuid).Resource, Trouble: w.m.o.Cards.Trouble(uuid),
			})
			if reason, message := w.m.o.Cards.Failed(uuid); message != "" && fault == nil {
				fault = &podstatus.Fault{Reason: reason, Message: message}
			}
		}
	}
	return cards, fault
}
