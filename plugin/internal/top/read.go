// Package top shows what the cards of AI nodes do: per card and per pod, as the
// nodes' agents measure it.
package top

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Card is one card of a node, or a MIG slice of one. What it does not tell is nil.
type Card struct {
	Index   int    `json:"index"`
	UUID    string `json:"uuid"`
	Product string `json:"product"`
	// Profile is of a slice NVIDIA's name of its kind, GPUInstance the id of what it is
	// on its card.
	Profile     string `json:"profile,omitempty"`
	GPUInstance string `json:"gpuInstance,omitempty"`
	// Slices are those of a card in MIG mode, which is given in them alone.
	Slices []Card `json:"slices,omitempty"`
	// Usable says that pods may have it.
	Usable bool `json:"usable"`
	// Namespace, Pod and Container have the card; empty where it is free.
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`

	UtilizationPercent *float64 `json:"utilizationPercent,omitempty"`
	MemoryUsedMiB      *float64 `json:"memoryUsedMiB,omitempty"`
	MemoryTotalMiB     *float64 `json:"memoryTotalMiB,omitempty"`
	PowerWatts         *float64 `json:"powerWatts,omitempty"`
	TemperatureCelsius *float64 `json:"temperatureCelsius,omitempty"`
	// DoubleBitErrors since the driver was loaded, and LastXID since the agent
	// started; 0 is none.
	DoubleBitErrors *float64 `json:"doubleBitErrors,omitempty"`
	LastXID         *float64 `json:"lastXID,omitempty"`
	// IdleSince is when it was last seen to compute, or first looked at; nil while it
	// computes.
	IdleSince *time.Time `json:"idleSince,omitempty"`
}

// Owner is NAMESPACE/POD, or empty.
func (c *Card) Owner() string {
	if c.Pod == "" {
		return ""
	}
	return c.Namespace + "/" + c.Pod
}

// devices are the card, and its slices.
func (c *Card) devices() []*Card {
	all := []*Card{c}
	for i := range c.Slices {
		all = append(all, &c.Slices[i])
	}
	return all
}

// Parse reads an agent's metrics, and returns the cards by their index, each with its
// slices.
func Parse(metrics []byte) ([]Card, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(metrics))
	if err != nil {
		return nil, fmt.Errorf("read its metrics: %w", err)
	}
	known, ok := families["ainode_gpu_usable"]
	if !ok {
		return nil, nil
	}
	cards, cardOf := map[string]*Card{}, map[string]string{} // by UUID, slices too
	for _, m := range known.GetMetric() {
		c, card := &Card{UUID: id(m), Usable: value(m) == 1}, ""
		for _, l := range m.GetLabel() {
			switch l.GetName() {
			case "gpu":
				c.Index, _ = strconv.Atoi(l.GetValue()) // 0 where it is none
			case "UUID":
				card = l.GetValue()
			case "GPU_I_PROFILE":
				c.Profile = l.GetValue()
			case "GPU_I_ID":
				c.GPUInstance = l.GetValue()
			case "modelName":
				c.Product = l.GetValue()
			case "namespace":
				c.Namespace = l.GetValue()
			case "pod":
				c.Pod = l.GetValue()
			case "container":
				c.Container = l.GetValue()
			}
		}
		cards[c.UUID] = c
		if card != c.UUID {
			cardOf[c.UUID] = card
		}
	}
	busy := map[string]float64{}
	for name, set := range map[string]func(*Card, float64){
		"DCGM_FI_DEV_GPU_UTIL":                   func(c *Card, v float64) { c.UtilizationPercent = &v },
		"DCGM_FI_DEV_FB_USED":                    func(c *Card, v float64) { c.MemoryUsedMiB = &v },
		"ainode_gpu_memory_total_mebibytes":      func(c *Card, v float64) { c.MemoryTotalMiB = &v },
		"DCGM_FI_DEV_POWER_USAGE":                func(c *Card, v float64) { c.PowerWatts = &v },
		"DCGM_FI_DEV_GPU_TEMP":                   func(c *Card, v float64) { c.TemperatureCelsius = &v },
		"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL":          func(c *Card, v float64) { c.DoubleBitErrors = &v },
		"DCGM_FI_DEV_XID_ERRORS":                 func(c *Card, v float64) { c.LastXID = &v },
		"ainode_gpu_last_busy_timestamp_seconds": func(c *Card, v float64) { busy[c.UUID] = v },
	} {
		for _, m := range families[name].GetMetric() {
			if c := cards[id(m)]; c != nil {
				set(c, value(m))
			}
		}
	}
	for _, c := range cards {
		if seconds, ok := busy[c.UUID]; ok && (c.UtilizationPercent == nil || *c.UtilizationPercent == 0) {
			at := time.Unix(int64(seconds), 0).UTC()
			c.IdleSince = &at
		}
	}
	for uuid, card := range cardOf {
		if cards[card] != nil { // a slice comes never without its card
			cards[card].Slices = append(cards[card].Slices, *cards[uuid])
			delete(cards, uuid)
		}
	}
	var all []Card
	for _, c := range cards {
		slices.SortFunc(c.Slices, inOrder)
		all = append(all, *c)
	}
	slices.SortFunc(all, inOrder)
	return all, nil
}

// inOrder is by index, and of slices by their instances.
func inOrder(a, b Card) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(len(a.GPUInstance), len(b.GPUInstance)),
		strings.Compare(a.GPUInstance, b.GPUInstance), strings.Compare(a.UUID, b.UUID))
}

// id is the UUID of the slice that a metric is about, or of the card.
func id(m *dto.Metric) string {
	var card string
	for _, l := range m.GetLabel() {
		switch {
		case l.GetName() == "MIG_UUID" && l.GetValue() != "":
			return l.GetValue()
		case l.GetName() == "UUID":
			card = l.GetValue()
		}
	}
	return card
}

// value of a gauge or a counter.
func value(m *dto.Metric) float64 {
	if c := m.GetCounter(); c != nil {
		return c.GetValue()
	}
	return m.GetGauge().GetValue()
}
