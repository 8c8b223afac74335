package topology

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Device is what a container may be given: a card, or a MIG slice of one.
type Device struct {
	UUID string
	// Card is the UUID of the card that it is, or is a slice of.
	Card string
	// Resource is what it is counted as.
	Resource corev1.ResourceName
	// Usable says that pods may have it.
	Usable bool
}

// Slice reports whether the device is a slice of a card.
func (d Device) Slice() bool { return d.UUID != d.Card }

// Kind says for people what it is.
func (d Device) Kind() string {
	if d.Slice() {
		return "MIG slice"
	}
	return "card"
}

// Pack returns n of the free slices, which are of one kind, or nil if there are not
// so many; inUse counts the slices of any kind that pods have of a card, by its UUID.
// Slices do not talk to each other (no NVLink and no peer-to-peer between MIG
// instances), so nothing is won by where they lie. What can be lost is a whole card: MIG
// is turned off, and a layout changed, only on a card that nobody uses. Hence cards in
// use are filled first, the fullest before others, and of equal ones that with the
// fewest free slices of this kind, so that large rests stay together.
func Pack(free []Device, inUse map[string]int, n int) []Device {
	if n < 0 || n > len(free) {
		return nil
	}
	left, used := map[string]int{}, map[string]int{}
	for _, d := range free {
		left[d.Card]++
		used[d.Card] = inUse[d.Card]
	}
	rest, taken := slices.Clone(free), []Device{}
	for range n {
		best := 0
		for i, d := range rest {
			b := rest[best]
			if cmp.Or(cmp.Compare(used[d.Card], used[b.Card]), cmp.Compare(left[b.Card], left[d.Card])) > 0 {
				best = i
			}
		}
		card := rest[best].Card
		taken = append(taken, rest[best])
		rest = slices.Delete(rest, best, best+1)
		used[card]++
		left[card]--
	}
	return taken
}
