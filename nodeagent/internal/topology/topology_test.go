package topology

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func names(n int) []string {
	var cards []string
	for i := range n {
		cards = append(cards, fmt.Sprintf("GPU-%02d", i))
	}
	return cards
}

// pairs is a machine of cards that have NVLink bridges two by two, and two sockets.
func pairs(cards []string) Map {
	var m Map
	for i, a := range cards {
		for j, b := range cards[i+1:] {
			j += i + 1
			l := Link{Path: System}
			if i/4 == j/4 {
				l.Path = Node
			}
			if i/2 == j/2 {
				l.NVLinks = 4
			}
			m.Join(a, b, l)
		}
	}
	return m
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := names(8)
	m := pairs(all)
	of := func(places ...int) []string {
		cards := []string{}
		for _, i := range places {
			cards = append(cards, all[i])
		}
		return cards
	}
	for name, c := range map[string]struct{ free, want []string }{
		"a bridged pair":                      {of(1, 2, 3), of(2, 3)},
		"one card breaks no pair":             {of(2, 3, 5), of(5)},
		"a pair before one socket":            {of(0, 2, 4, 5), of(4, 5)},
		"one socket where no bridge is free":  {of(0, 5, 7), of(5, 7)},
		"two pairs of one socket":             {all, of(0, 1, 2, 3)},
		"what is left stays on one socket":    {of(0, 1, 2, 4, 5, 6), of(0, 1)},
		"all there are":                       {of(0, 7), of(0, 7)},
		"none":                                {all, of()},
		"across sockets, two pairs, not four": {of(0, 1, 2, 4, 5), of(0, 1, 4, 5)},
	} {
		require.Equal(t, c.want, m.Choose(c.free, len(c.want)), name)
	}
	require.Nil(t, m.Choose(of(0, 1), 3))
	require.Nil(t, m.Choose(all, -1))
	require.Equal(t, of(3, 1), Map{}.Choose(of(3, 1, 0), 2), "without knowledge the first ones")
}

func TestSwitchedMachinesAreFilledSocketBySocket(t *testing.T) {
	t.Parallel()
	all := names(8)
	var m Map
	for i, a := range all {
		for j := i + 1; j < 8; j++ {
			l := Link{NVLinks: 18, Path: System}
			if i/4 == j/4 {
				l.Path = Node
			}
			m.Join(a, all[j], l)
		}
	}
	require.Equal(t, all[:4], m.Choose(all, 4))
	require.Equal(t, all[4:6], m.Choose(slices.Concat(all[:1], all[4:6]), 2))
}

// Whatever the machine: the cards are free ones, so many as asked, each once, and no
// other set talks better.
func TestNoOtherSetIsBetter(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		free := names(1 + random.IntN(8))
		var m Map
		for i, a := range free {
			for _, b := range free[i+1:] {
				m.Join(a, b, Link{NVLinks: random.IntN(3), Path: Path(random.IntN(7))})
			}
		}
		n := random.IntN(len(free) + 1)
		got := m.Choose(free, n)
		require.Len(t, got, n)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(got))), n)
		for _, card := range got {
			require.Contains(t, free, card)
		}
		sets(len(free), n, func(taken []int) {
			other, _ := split(free, taken)
			require.GreaterOrEqual(t, m.within(got), m.within(other))
		})
	}
}

func TestManyCardsAreChosenInTime(t *testing.T) {
	t.Parallel()
	all := names(64)
	m := pairs(all)
	got := m.Choose(all, 32)
	require.Len(t, got, 32)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(got))), 32)
	for i := 0; i < len(got); i += 2 {
		require.Equal(t, 4, m.Between(got[i], got[i+1]).NVLinks, "pairs stay together")
	}
}

// Cards in use are filled first, then those of which least is left.
func TestSlicesFillCardsInUse(t *testing.T) {
	t.Parallel()
	slice := func(card, name string) Device { return Device{UUID: card + name, Card: card} }
	free := []Device{slice("A", "1"), slice("A", "2"), slice("A", "3"), slice("B", "1"), slice("B", "2"), slice("C", "1"), slice("C", "2"), slice("C", "3")}
	require.Equal(t, []Device{slice("B", "1")}, Pack(free, nil, 1), "the least rest")
	require.Equal(t, []Device{slice("C", "1"), slice("C", "2")}, Pack(free, map[string]int{"C": 2, "B": 1}, 2), "the fullest card")
	require.Equal(t, []Device{slice("B", "1"), slice("B", "2"), slice("A", "1"), slice("A", "2")}, Pack(free, map[string]int{"B": 1}, 4), "and then one other alone")
	require.Equal(t, []Device{}, Pack(free, nil, 0))
	require.Nil(t, Pack(free, nil, 9))
	require.Nil(t, Pack(nil, nil, 1))
}
