// Package gpumetrics shows what is measured of the cards and their MIG slices, on
// /metrics, under the names and labels of NVIDIA's dcgm-exporter as far as NVML knows
// them: people's dashboards and alerts then work as they are. What is ours begins with
// ainode_gpu_.
package gpumetrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/gpu"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
)

// Cards are how the machine's cards are.
type Cards interface {
	States() []gpuhealth.State
	Counters() map[gpuhealth.Count]uint64
}

// Options of a collector; all are required.
type Options struct {
	Cards Cards
	// Node is the label Hostname.
	Node string
	// Simulated cards say so in the label modelName.
	Simulated bool
	// Owner is the pod that has a card or slice, and its container.
	Owner func(uuid string) (pod types.NamespacedName, container string, ok bool)
}

// Gatherer gathers what is known at that moment; nothing is asked of the driver.
func Gatherer(o Options) prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{o})
	return registry
}

type collector struct{ o Options }

// labels are dcgm-exporter's: a slice has its card's UUID there, and GPU_I_PROFILE and
// GPU_I_ID, the id of its GPU instance, which are empty (none, for Prometheus) for a
// card. MIG_UUID is ours: several slices may share a GPU instance. dcgm-exporter says of a
// slice what its card's power and temperature are; here only the card does, so that
// sums are right.
var labels = []string{"gpu", "UUID", "device", "modelName", "Hostname", "GPU_I_PROFILE", "GPU_I_ID", "MIG_UUID", "namespace", "pod", "container"}

var (
	xid = prometheus.NewDesc("DCGM_FI_DEV_XID_ERRORS",
		"Value of the last XID error encountered; 0 if there was none since the agent started.", labels, nil)
	usable = prometheus.NewDesc("ainode_gpu_usable", "Whether pods may have the GPU or slice, or slices of the GPU.", labels, nil)
	busy   = prometheus.NewDesc("ainode_gpu_last_busy_timestamp_seconds",
		"When the GPU was last seen to compute, or first looked at.", labels, nil)
	total = prometheus.NewDesc("ainode_gpu_memory_total_mebibytes", "Memory of the GPU (in MiB).", labels, nil)
	fault = prometheus.NewDesc("ainode_gpu_faults_total",
		"What befell a GPU since the agent started, by what has to be done about it.", []string{"UUID", "Hostname", "reason", "class"}, nil)
)

// fields are those of gpu.Fields, in its order.
var fields = func() []*prometheus.Desc {
	var all []*prometheus.Desc
	for _, f := range gpu.Fields {
		all = append(all, prometheus.NewDesc(f.Name, f.Help, labels, nil))
	}
	return all
}()

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{xid, usable, busy, total, fault}, fields...) {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, card := range c.o.Cards.States() {
		if card.UUID == "" {
			continue // it does not even tell who it is
		}
		values := c.values(card)
		gauge := func(d *prometheus.Desc, v float64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, values...)
		}
		gauge(xid, float64(card.LastXID))
		gauge(usable, map[bool]float64{true: 1}[card.Trouble == ""])
		bytes := card.MemoryBytes
		if card.Slice != nil {
			bytes = card.Slice.MemoryBytes()
		}
		if bytes > 0 {
			gauge(total, float64(bytes>>20))
		}
		if !card.Sample.Busy.IsZero() {
			gauge(busy, float64(card.Sample.Busy.Unix()))
		}
		for i, f := range gpu.Fields {
			v, known := card.Sample.Reading[f.Name]
			if !known {
				continue
			}
			kind := prometheus.GaugeValue
			if f.Counter {
				kind = prometheus.CounterValue
			}
			to <- prometheus.MustNewConstMetric(fields[i], kind, v, values...)
		}
	}
	for count, n := range c.o.Cards.Counters() {
		to <- prometheus.MustNewConstMetric(fault, prometheus.CounterValue, float64(n), count.UUID, c.o.Node, count.Reason, string(count.Class))
	}
}

func (c collector) values(card gpuhealth.State) []string {
	model := card.Product
	if c.o.Simulated {
		model += " [SIMULATED]"
	}
	var profile, instance, slice string
	if card.Slice != nil {
		profile, instance, slice = card.Slice.Profile, strconv.Itoa(card.Slice.GPUInstance), card.Slice.UUID
	}
	pod, container, _ := c.o.Owner(card.ID())
	return []string{
		strconv.Itoa(card.Index), card.UUID, "nvidia" + strconv.Itoa(card.MinorNumber), model, c.o.Node,
		profile, instance, slice, pod.Namespace, pod.Name, container,
	}
}
