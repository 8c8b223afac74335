package nodes

import (
	"fmt"
	"strings"

	"github.com/ainode/ainode/api/v1alpha1"
)

// none is how kubectl writes that there is nothing.
const none = "<none>"

// GPUs writes the cards of a node: "8×H200", simulated ones "8×H200 (simulated)".
func GPUs(s v1alpha1.AINodeStatus) string {
	if len(s.GPUs) == 0 {
		return none
	}
	count := map[string]int{}
	var products []string
	for _, g := range s.GPUs {
		p := product(g.Product)
		if count[p] == 0 {
			products = append(products, p)
		}
		count[p]++
	}
	parts := make([]string, len(products))
	for i, p := range products {
		parts[i] = fmt.Sprintf("%d×%s", count[p], p)
	}
	text := strings.Join(parts, ",")
	if s.SimulatedGPUs != "" {
		text += " (simulated)"
	}
	return text
}

// product drops the maker's name: "NVIDIA H200" is an H200.
func product(name string) string {
	name = strings.TrimSpace(name)
	for _, maker := range []string{"NVIDIA ", "Tesla "} {
		name = strings.TrimPrefix(name, maker)
	}
	if name == "" {
		return "GPU"
	}
	return strings.ReplaceAll(name, " ", "-")
}

// Used writes how many cards are in use: "6/8".
func Used(s v1alpha1.AINodeStatus) string {
	return fmt.Sprintf("%d/%d", s.GPUsInUse, len(s.GPUs))
}
