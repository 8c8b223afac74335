// Package gpuallocation gives GPUs and MIG slices to pods, and knows who has them.
package gpuallocation

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

// Assignment is which cards and slices each container of a pod has, by container name.
type Assignment map[string][]string

// Devices of the assignment, each once.
func (a Assignment) Devices() []string {
	var all []string
	for _, uuids := range a {
		all = append(all, uuids...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Allocator gives whole cards and MIG slices to pods and knows who has them. A device
// is free again when its pod's processes have ended, which its owner says by Release.
type Allocator struct {
	// device tells of which card one is, though it may be no more.
	device func(uuid string) topology.Device

	mu    sync.Mutex
	owner map[string]types.UID
	has   map[types.UID]Assignment
}

// New makes an Allocator of free devices; device tells of which card one is, though it may
// be no more.
func New(device func(uuid string) topology.Device) *Allocator {
	return &Allocator{device: device, owner: map[string]types.UID{}, has: map[types.UID]Assignment{}}
}

// Claim records what a pod has already.
func (a *Allocator) Claim(uid types.UID, assigned Assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.give(uid, assigned)
}

// give records an assignment. Callers hold mu.
func (a *Allocator) give(uid types.UID, assigned Assignment) {
	for _, uuid := range assigned.Devices() {
		a.owner[uuid] = uid
		a.has[uid] = assigned
	}
}

// Owners are the pods that have the device, or a slice of it, or, for the empty UUID,
// any.
func (a *Allocator) Owners(uuid string) []types.UID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if uuid == "" {
		return slices.Collect(maps.Keys(a.has))
	}
	var uids []types.UID
	for held, uid := range a.owner {
		if (held == uuid || a.device(held).Card == uuid) && !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return uids
}

// Assignment is what the pod has. Do not change it.
func (a *Allocator) Assignment(uid types.UID) Assignment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.has[uid]
}

// Shortage is why a pod gets nothing.
type Shortage struct {
	Resource               corev1.ResourceName
	requested, free, total int
}

func (s *Shortage) Error() string {
	kind := "slices"
	if s.Resource == contract.GPUResource {
		kind = "cards"
	}
	return fmt.Sprintf("requested: %d, free: %d, %s: %d", s.requested, s.free, kind, s.total)
}

// Assign gives the pod the devices that its containers ask for, of the usable ones that
// are free: those cards which talk to each other best, and slices of the fullest cards.
// It gives all or nothing; its error is a *Shortage.
func (a *Allocator) Assign(pod *corev1.Pod, devices []topology.Device, links topology.Map) (Assignment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted, blocked, inUse := devicesNeeded(pod), a.blocked(devices), a.perCard()
	chosen := map[corev1.ResourceName][]string{}
	for _, resource := range slices.Sorted(maps.Keys(wanted)) {
		var free []topology.Device
		total := 0
		for _, d := range devices {
			if d.Resource != resource || !d.Usable {
				continue
			}
			total++
			if _, taken := a.owner[d.UUID]; !taken && !blocked[d.Card] {
				free = append(free, d)
			}
		}
		n := wanted[resource]
		if n > len(free) {
			return nil, &Shortage{resource, n, len(free), total}
		}
		if resource == contract.GPUResource {
			chosen[resource] = links.Choose(uuids(free), n)
			continue
		}
		packed := topology.Pack(free, inUse, n)
		for _, d := range packed {
			inUse[d.Card]++
		}
		chosen[resource] = uuids(packed)
	}
	assigned := spread(pod, chosen)
	a.give(pod.UID, assigned)
	return assigned, nil
}

// blocked are the cards that are cut otherwise than when pods got something of them:
// the pod's container still has the card's device node, and would see what others get.
// Callers hold mu.
func (a *Allocator) blocked(devices []topology.Device) map[string]bool {
	there, blocked := map[string]bool{}, map[string]bool{}
	for _, d := range devices {
		there[d.UUID] = true
	}
	for uuid := range a.owner {
		if !there[uuid] {
			blocked[a.device(uuid).Card] = true
		}
	}
	return blocked
}

// Withheld counts the usable devices that no pod gets since their card is blocked, and
// names the cards.
func (a *Allocator) Withheld(devices []topology.Device) (counts map[corev1.ResourceName]int, cards []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts, blocked := map[corev1.ResourceName]int{}, a.blocked(devices)
	for _, d := range devices {
		if _, taken := a.owner[d.UUID]; !taken && d.Usable && blocked[d.Card] {
			counts[d.Resource]++
			cards = append(cards, d.Card)
		}
	}
	slices.Sort(cards)
	return counts, slices.Compact(cards)
}

// perCard counts, by card, what pods have of it. Callers hold mu.
func (a *Allocator) perCard() map[string]int {
	n := map[string]int{}
	for uuid := range a.owner {
		n[a.device(uuid).Card]++
	}
	return n
}

func uuids(devices []topology.Device) []string {
	var all []string
	for _, d := range devices {
		all = append(all, d.UUID)
	}
	return all
}

// Release frees all devices of the pod.
func (a *Allocator) Release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.owner, func(_ string, owner types.UID) bool { return owner == uid })
	delete(a.has, uid)
}

// Clear frees all devices.
func (a *Allocator) Clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.owner)
	clear(a.has)
}

// InUse counts the cards that pods have, or have slices of.
func (a *Allocator) InUse() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.perCard())
}
