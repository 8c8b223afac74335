package simulated

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Layout is how simulated cards are cut: for the index of each card in MIG mode the
// profiles of its slices, in the order in which they are made. No profile is a card
// in MIG mode that is not cut yet.
type Layout map[int][]string

// most slices of a card in a layout; no card has so many.
const most = 64

// ParseLayout reads what --simulate-mig has, for example
// "0:3g.40gb,3g.40gb;1:1g.10gb*7;2:". Whether a card can be cut like that is another
// matter.
func ParseLayout(text string) (Layout, error) {
	layout := Layout{}
	if strings.TrimSpace(text) == "" {
		return layout, nil
	}
	for part := range strings.SplitSeq(text, ";") {
		before, after, ok := strings.Cut(part, ":")
		index, err := strconv.Atoi(strings.TrimSpace(before))
		if !ok || err != nil || index < 0 {
			return nil, fmt.Errorf("want INDEX:PROFILE,… for each card, got %q", part)
		}
		if _, twice := layout[index]; twice {
			return nil, fmt.Errorf("card %d stands there twice", index)
		}
		layout[index] = []string{}
		for profile := range strings.SplitSeq(after, ",") {
			profile, times, many := strings.Cut(strings.TrimSpace(profile), "*")
			n := 1
			if many {
				if n, err = strconv.Atoi(times); err != nil || n < 1 || n > most {
					return nil, fmt.Errorf("want PROFILE*COUNT, got %q of card %d", profile+"*"+times, index)
				}
			}
			if profile == "" && strings.TrimSpace(after) != "" {
				return nil, fmt.Errorf("a profile of card %d is empty", index)
			}
			if profile != "" {
				layout[index] = append(layout[index], slices.Repeat([]string{profile}, n)...)
			}
		}
	}
	return layout, nil
}
