package top

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// Node is one AI node and what could be read of it.
type Node struct {
	Name      string `json:"name"`
	Simulated bool   `json:"simulated,omitempty"`
	Cards     []Card `json:"cards,omitempty"`
	// Health is what the Node says where not all its cards can be used.
	Health string `json:"health,omitempty"`
	// Problem is why its cards could not be read.
	Problem string `json:"problem,omitempty"`
}

// dash stands where a card tells nothing.
const dash = "-"

// Cards writes a block for each node, a line for each card and each slice of one, within
// 80 columns as long as the names are short.
func Cards(out io.Writer, nodes []Node, now time.Time) error {
	for i := range nodes {
		n := &nodes[i]
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := printers.WriteEscaped(out, n.title()+"\n"); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		var rows [][]string
		for _, c := range n.devices() {
			rows = append(rows, []string{
				place(c), number(c.UtilizationPercent, "%"), memory(c.MemoryUsedMiB, c.MemoryTotalMiB),
				number(c.PowerWatts, "W"), number(c.TemperatureCelsius, "C"), number(c.DoubleBitErrors, ""), xid(c.LastXID),
				idle(c.IdleSince, now), holder(c),
			})
		}
		if len(rows) > 0 {
			if err := aligned(out, []string{"GPU", "UTIL", "MEMORY", "POWER", "TEMP", "ECC", "XID", "IDLE", "POD"}, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// title is the line above a node's cards.
func (n *Node) title() string {
	text := n.Name
	if n.Problem != "" {
		return text + "  can't be read: " + n.Problem
	}
	used, products := 0, map[string]int{}
	slicesUsed, slicesTotal := 0, 0
	for i := range n.Cards {
		c := &n.Cards[i]
		products[strings.TrimPrefix(c.Product, "NVIDIA ")]++
		slicesTotal += len(c.Slices)
		here := 0
		for j := range c.Slices {
			if c.Slices[j].Pod != "" {
				here++
			}
		}
		if slicesUsed += here; here > 0 || c.Pod != "" {
			used++
		}
	}
	var kinds []string
	for product, count := range products {
		kinds = append(kinds, fmt.Sprintf("%d×%s", count, strings.TrimSpace(strings.TrimSuffix(product, "[SIMULATED]"))))
	}
	slices.Sort(kinds)
	if len(kinds) == 0 {
		kinds = []string{"no GPUs"}
	}
	text += "  " + strings.Join(kinds, ", ")
	if n.Simulated {
		text += " (simulated)"
	}
	if len(n.Cards) > 0 {
		text += fmt.Sprintf(", %d in use", used)
	}
	if slicesTotal > 0 {
		text += fmt.Sprintf("; %d of %d MIG slices", slicesUsed, slicesTotal)
	}
	if n.Health != "" {
		text += "\n  " + strings.ReplaceAll(n.Health, "\n", " ")
	}
	return text
}

// devices are the node's cards, each before its slices.
func (n *Node) devices() []*Card {
	var all []*Card
	for i := range n.Cards {
		all = append(all, n.Cards[i].devices()...)
	}
	return all
}

// place is a card's index, and a slice's GPU instance and kind on it: 1/7 1g.10gb.
func place(c *Card) string {
	if c.Profile == "" {
		return fmt.Sprint(c.Index)
	}
	return fmt.Sprintf("%d/%s %s", c.Index, c.GPUInstance, c.Profile)
}

// Pods writes a line for each pod that has cards.
func Pods(out io.Writer, nodes []Node, now time.Time) error {
	var rows [][]string
	for i := range nodes {
		if n := &nodes[i]; n.Problem != "" {
			rows = append(rows, []string{dash, n.Name, dash, dash, dash, dash, "can't be read: " + n.Problem})
			continue
		}
		for _, p := range perPod(&nodes[i]) {
			rows = append(rows, []string{
				p.name, nodes[i].Name, p.gpus(), number(p.utilization(), "%"), memory(p.used, p.total), number(p.power, "W"),
				idle(p.idleSince, now),
			})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return aligned(out, []string{"POD", "NODE", "GPUS", "UTIL", "MEMORY", "POWER", "IDLE"}, rows)
}

// pod is the sum of a pod's cards and slices.
type pod struct {
	name               string
	cards, slices      int
	measured           int
	use                float64
	used, total, power *float64
	// idleSince is the latest of its cards', nil if one computes.
	idleSince *time.Time
	busy      bool
}

// gpus counts cards and slices.
func (p *pod) gpus() string {
	switch {
	case p.slices == 0:
		return fmt.Sprint(p.cards)
	case p.cards == 0:
		return fmt.Sprintf("%d MIG", p.slices)
	default:
		return fmt.Sprintf("%d+%d MIG", p.cards, p.slices)
	}
}

// utilization is the cards' mean.
func (p *pod) utilization() *float64 {
	if p.measured == 0 {
		return nil
	}
	mean := p.use / float64(p.measured)
	return &mean
}

func perPod(n *Node) []*pod {
	var pods []*pod
	for _, c := range n.devices() {
		if c.Pod == "" {
			continue
		}
		at := slices.IndexFunc(pods, func(p *pod) bool { return p.name == c.Owner() })
		if at < 0 {
			at, pods = len(pods), append(pods, &pod{name: c.Owner()})
		}
		p := pods[at]
		if c.Profile != "" {
			p.slices++
		} else {
			p.cards++
		}
		if c.UtilizationPercent != nil {
			p.measured++
			p.use += *c.UtilizationPercent
		}
		p.used, p.total, p.power = sum(p.used, c.MemoryUsedMiB), sum(p.total, c.MemoryTotalMiB), sum(p.power, c.PowerWatts)
		switch {
		case c.IdleSince == nil:
			p.busy, p.idleSince = true, nil
		case !p.busy && (p.idleSince == nil || c.IdleSince.After(*p.idleSince)):
			p.idleSince = c.IdleSince
		}
	}
	slices.SortFunc(pods, func(a, b *pod) int { return strings.Compare(a.name, b.name) })
	return pods
}

func sum(a, b *float64) *float64 {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	v := *a + *b
	return &v
}

func number(v *float64, unit string) string {
	if v == nil {
		return dash
	}
	return fmt.Sprintf("%.0f%s", *v, unit)
}

// memory in GiB, used/total.
func memory(used, total *float64) string {
	if total == nil {
		return dash
	}
	if used == nil {
		return fmt.Sprintf("-/%.0fGi", *total/1024)
	}
	return fmt.Sprintf("%.1f/%.0fGi", *used/1024, *total/1024)
}

func xid(v *float64) string {
	if v == nil || *v == 0 {
		return dash
	}
	return fmt.Sprintf("%.0f", *v)
}

func idle(since *time.Time, now time.Time) string {
	if since == nil {
		return dash
	}
	return duration.HumanDuration(now.Sub(*since))
}

// holder is the pod, and whether the card is one that no other would get.
func holder(c *Card) string {
	switch {
	case !c.Usable && c.Pod == "":
		return "out"
	case !c.Usable:
		return c.Owner() + " (out)"
	case len(c.Slices) > 0:
		return "MIG"
	case c.Pod == "":
		return dash
	}
	return c.Owner()
}

// aligned writes columns two spaces apart.
func aligned(out io.Writer, header []string, rows [][]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i := range row {
			row[i] = strings.NewReplacer("\n", " ", "\t", " ").Replace(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if err := printers.WriteEscaped(out, text.String()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
