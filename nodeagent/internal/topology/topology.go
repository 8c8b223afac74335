// Package topology chooses which of a machine's free cards a pod gets: those that
// talk to each other best, NVLink before PCIe, and so that what stays free talks
// well too; and which slices of cards. It is pure.
package topology

import (
	"cmp"
	"math/big"
	"slices"
)

// Path is how two cards reach each other over PCIe, nearest first. The words are
// those of nvidia-smi topo -m.
type Path int

// The levels that NVML tells apart (nvmlGpuTopologyLevel_t).
const (
	// Unknown is a pair that the driver says nothing of.
	Unknown Path = iota
	// System crosses the link between CPU sockets (SYS).
	System
	// Node crosses host bridges of one NUMA node (NODE).
	Node
	// HostBridge meets at a host bridge (PHB).
	HostBridge
	// ManySwitches crosses several PCIe switches (PXB).
	ManySwitches
	// OneSwitch meets at one PCIe switch (PIX).
	OneSwitch
	// Board is one board (PSB).
	Board
)

// String is nvidia-smi's word.
func (p Path) String() string {
	return [...]string{"?", "SYS", "NODE", "PHB", "PXB", "PIX", "PSB"}[p]
}

// Link is what joins two cards.
type Link struct {
	// NVLinks that are up between them, directly or through switches.
	NVLinks int
	Path    Path
}

// weight of a link. That one NVLink outweighs every way over PCIe, and the steps
// between those ways, are the scores of NVIDIA's own allocator
// (go-gpuallocator, gpuallocator/besteffort_policy.go).
func (l Link) weight() int { return 100*l.NVLinks + 10*int(l.Path) }

// Map is the links of a machine. The zero Map knows none: cards are then taken in
// their order.
type Map struct{ links map[pair]Link }

type pair struct{ a, b string }

func pairOf(a, b string) pair {
	if b < a {
		a, b = b, a
	}
	return pair{a, b}
}

// Join sets the link of two cards, by UUID.
func (m *Map) Join(a, b string, l Link) {
	if m.links == nil {
		m.links = map[pair]Link{}
	}
	m.links[pairOf(a, b)] = l
}

// Between is the link of two cards.
func (m Map) Between(a, b string) Link { return m.links[pairOf(a, b)] }

// within is how well the cards talk among each other.
func (m Map) within(cards []string) int {
	total := 0
	for i, a := range cards {
		for _, b := range cards[i+1:] {
			total += m.Between(a, b).weight()
		}
	}
	return total
}

// mostSets is up to how many sets are compared one by one; 8 of 16 cards are 12,870.
// A machine with more grows its sets card by card.
const mostSets = 20_000

// Choose returns n of the free cards, in free's order, or nil if there are not so
// many: the set that talks best; of equal ones the set that leaves the others
// talking best, so that a pod with one card does not break a pair; of equal ones
// the first.
func (m Map) Choose(free []string, n int) []string {
	if n < 0 || n > len(free) {
		return nil
	}
	best := choice{score: -1, rest: -1}
	consider := func(taken []int) {
		c := choice{taken: taken}
		cards, rest := split(free, taken)
		c.score, c.rest = m.within(cards), m.within(rest)
		if c.better(best) {
			c.taken = slices.Clone(taken)
			best = c
		}
	}
	if new(big.Int).Binomial(int64(len(free)), int64(n)).Cmp(big.NewInt(mostSets)) <= 0 {
		sets(len(free), n, consider)
	} else {
		for seed := range free {
			consider(m.grow(free, seed, n))
		}
	}
	cards, _ := split(free, best.taken)
	return cards
}

// choice is a set of cards, by their places in the list of free ones.
type choice struct {
	taken       []int
	score, rest int
}

func (c choice) better(than choice) bool {
	return cmp.Or(cmp.Compare(c.score, than.score), cmp.Compare(c.rest, than.rest), slices.Compare(than.taken, c.taken)) > 0
}

// split divides cards into those at the places taken, which ascend, and the rest.
func split(cards []string, taken []int) (in, out []string) {
	in = []string{}
	for i, card := range cards {
		if len(taken) > len(in) && taken[len(in)] == i {
			in = append(in, card)
		} else {
			out = append(out, card)
		}
	}
	return in, out
}

// sets calls each with every set of k of the numbers below n, in order. The slice
// is used again.
func sets(n, k int, each func([]int)) {
	taken := make([]int, k)
	var place func(at, from int)
	place = func(at, from int) {
		if at == k {
			each(taken)
			return
		}
		for i := from; i <= n-(k-at); i++ {
			taken[at] = i
			place(at+1, i+1)
		}
	}
	place(0, 0)
}

// grow adds to the card at seed, one by one, the card that talks best to the set.
func (m Map) grow(free []string, seed, n int) []int {
	taken := []int{seed}
	for len(taken) < n {
		best, most := -1, -1
		for i, card := range free {
			if slices.Contains(taken, i) {
				continue
			}
			score := 0
			for _, j := range taken {
				score += m.Between(card, free[j]).weight()
			}
			if score > most {
				best, most = i, score
			}
		}
		taken = append(taken, best)
	}
	slices.Sort(taken[:n])
	return taken[:n]
}
