package nodes

import (
	"fmt"
	"regexp"
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

// Slices writes how cards are cut: ", 2 of them in MIG mode with 9 slices"; empty where
// none is.
func Slices(s v1alpha1.AINodeStatus) string {
	cards, slices := 0, 0
	for _, g := range s.GPUs {
		if g.MIG {
			cards++
		}
		slices += len(g.Slices)
	}
	if cards == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them in MIG mode with %d slices", cards, slices)
}

// memoryWord is a part of a product's name that tells its memory: 80GB, HBM3e.
var memoryWord = regexp.MustCompile(`^([0-9]+GB|HBM[0-9]?[a-z]?|GDDR[0-9]?)$`)

// product is the short name people use: "NVIDIA H200 141GB HBM3e" is an H200.
func product(name string) string {
	var short []string
	for _, word := range strings.Fields(name) {
		if word != "NVIDIA" && word != "Tesla" && !memoryWord.MatchString(word) {
			short = append(short, word)
		}
	}
	if len(short) == 0 {
		return "GPU"
	}
	return strings.Join(short, "-")
}

// Used writes how many cards are in use: "6/8".
func Used(s v1alpha1.AINodeStatus) string {
	return fmt.Sprintf("%d/%d", s.GPUsInUse, len(s.GPUs))
}
