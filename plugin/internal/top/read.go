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

// Card is one card of a node. What a card does not tell is nil.
type Card struct {
	Index   int    `json:"index"`
	UUID    string `json:"uuid"`
	Product string `json:"product"`
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

// Parse reads an agent's metrics, and returns the cards by their index.
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
	cards := map[string]*Card{}
	for _, m := range known.GetMetric() {
		c := &Card{Usable: value(m) == 1}
		for _, l := range m.GetLabel() {
			switch l.GetName() {
			case "gpu":
				c.Index, _ = strconv.Atoi(l.GetValue()) // 0 where it is none
			case "UUID":
				c.UUID = l.GetValue()
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
			if c := cards[uuid(m)]; c != nil {
				set(c, value(m))
			}
		}
	}
	var all []Card
	for _, c := range cards {
		if seconds, ok := busy[c.UUID]; ok && (c.UtilizationPercent == nil || *c.UtilizationPercent == 0) {
			at := time.Unix(int64(seconds), 0).UTC()
			c.IdleSince = &at
		}
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Card) int { return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.UUID, b.UUID)) })
	return all, nil
}

func uuid(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "UUID" {
			return l.GetValue()
		}
	}
	return ""
}

// value of a gauge or a counter.
func value(m *dto.Metric) float64 {
	if c := m.GetCounter(); c != nil {
		return c.GetValue()
	}
	return m.GetGauge().GetValue()
}
