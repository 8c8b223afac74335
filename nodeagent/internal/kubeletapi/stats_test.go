package kubeletapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

var taken = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// measured is a node with one pod of two containers: one core is used, half of it by
// the first container, from taken on; a measurement is made every ten seconds.
type measured struct{ times, withDisk atomic.Int64 }

func (m *measured) Summary(_ context.Context, disk bool) (*stats.Summary, error) {
	if disk {
		m.withDisk.Add(1)
	}
	seconds := 10 * m.times.Add(1)
	now := metav1.NewTime(taken.Add(time.Duration(seconds) * time.Second))
	cpu := func(cores float64) *stats.CPUStats {
		return &stats.CPUStats{Time: now, UsageCoreNanoSeconds: ptr.To(uint64(cores * float64(seconds) * 1e9))}
	}
	memory := func(mib uint64) *stats.MemoryStats {
		return &stats.MemoryStats{Time: now, WorkingSetBytes: ptr.To(mib << 20)}
	}
	started := metav1.NewTime(taken)
	return &stats.Summary{
		Node: stats.NodeStats{NodeName: "ai-1", CPU: cpu(1), Memory: memory(4096)},
		Pods: []stats.PodStats{{
			PodRef: stats.PodReference{Name: "p", Namespace: "default", UID: "u1"}, StartTime: started, CPU: cpu(0.75), Memory: memory(300),
			Containers: []stats.ContainerStats{
				{Name: "main", StartTime: started, CPU: cpu(0.5), Memory: memory(200)},
				{Name: "side", StartTime: started, CPU: cpu(0.25), Memory: memory(100)},
			},
		}},
	}, nil
}

// Volumes has one claim that two pods have, and one whose driver counts bytes alone.
func (m *measured) Volumes() []stats.VolumeStats {
	of := func(name string) stats.VolumeStats {
		return stats.VolumeStats{Name: "data", PVCRef: &stats.PVCReference{Namespace: "default", Name: name}, FsStats: stats.FsStats{
			CapacityBytes: ptr.To[uint64](100 << 30), AvailableBytes: ptr.To[uint64](60 << 30), UsedBytes: ptr.To[uint64](40 << 30),
		}}
	}
	shared := of("shared")
	shared.Inodes, shared.InodesFree, shared.InodesUsed = ptr.To[uint64](1000), ptr.To[uint64](900), ptr.To[uint64](100)
	return []stats.VolumeStats{shared, shared, of("bytes"), {Name: "no-claim"}}
}

func TestMetricsOfClaims(t *testing.T) {
	t.Parallel()
	code, body := serve(t).get(t, "/metrics", nil, "good")
	require.Equal(t, http.StatusOK, code, body)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err)
	for name, want := range map[string]map[string]float64{
		"capacity_bytes": {"default/bytes": 100 << 30, "default/shared": 100 << 30}, "available_bytes": {"default/bytes": 60 << 30, "default/shared": 60 << 30},
		"used_bytes": {"default/bytes": 40 << 30, "default/shared": 40 << 30},
		"inodes":     {"default/shared": 1000}, "inodes_free": {"default/shared": 900}, "inodes_used": {"default/shared": 100},
	} {
		f := families["kubelet_volume_stats_"+name]
		require.NotNil(t, f, name)
		require.Equal(t, dto.MetricType_GAUGE, f.GetType())
		got := map[string]float64{}
		for _, m := range f.Metric {
			require.Len(t, m.Label, 2)
			got[label(m, "namespace")+"/"+label(m, "persistentvolumeclaim")] = m.GetGauge().GetValue()
		}
		require.Equal(t, want, got, name)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	r := serve(t)
	for path, disks := range map[string]int64{"/metrics/resource": 0, "/stats/summary?only_cpu_and_memory=true": 0, "/stats/summary": 1} {
		before := r.usage.withDisk.Load()
		code, _ := r.get(t, path, nil, "good")
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, disks, r.usage.withDisk.Load()-before, path)
	}
	_, body := r.get(t, "/stats/summary", nil, "good")
	var summary stats.Summary
	require.NoError(t, json.Unmarshal([]byte(body), &summary))
	require.Equal(t, "ai-1", summary.Node.NodeName)
	require.Len(t, summary.Pods[0].Containers, 2)
	require.NotContains(t, body, "swap")
	_, body = r.get(t, "/metrics", nil, "good")
	require.True(t, bytes.Contains([]byte(body), []byte("go_goroutines")))
}

// point is what metrics-server keeps of a node or container.
type point struct {
	cpu, memory float64 // seconds and bytes
	at          time.Time
	started     float64
}

// decode reads /metrics/resource by metrics-server's rules
// (pkg/scraper/client/resource/decode.go): series by name, labels container,
// namespace and pod, the sample's own time.
func decode(t *testing.T, body string) (node point, containers map[string]*point) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err)
	containers = map[string]*point{}
	each := func(name string, do func(p *point, value float64, at time.Time)) {
		f := families[name]
		require.NotNil(t, f, name)
		for _, m := range f.Metric {
			p := &node
			if len(m.Label) > 0 {
				key := label(m, "namespace") + "/" + label(m, "pod") + "/" + label(m, "container")
				if containers[key] == nil {
					containers[key] = &point{}
				}
				p = containers[key]
			}
			value := m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			do(p, value, time.UnixMilli(m.GetTimestampMs()))
		}
	}
	cpu := func(p *point, value float64, at time.Time) { p.cpu, p.at = value, at }
	memory := func(p *point, value float64, _ time.Time) { p.memory = value }
	each("node_cpu_usage_seconds_total", cpu)
	each("node_memory_working_set_bytes", memory)
	each("container_cpu_usage_seconds_total", cpu)
	each("container_memory_working_set_bytes", memory)
	each("container_start_time_seconds", func(p *point, value float64, _ time.Time) { p.started = value })
	return node, containers
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestMetricsServerReadsRates(t *testing.T) {
	t.Parallel()
	r := serve(t)
	scrape := func() (point, map[string]*point) {
		code, body := r.get(t, "/metrics/resource", nil, "good")
		require.Equal(t, http.StatusOK, code)
		// It looks for labels in the bytes, and not by a parser.
		require.Contains(t, body, `container_cpu_usage_seconds_total{container="main",namespace="default",pod="p"} `)
		require.Contains(t, body, "\nresource_scrape_error 0\n")
		require.NotContains(t, body, "swap")
		return decode(t, body)
	}
	node1, containers1 := scrape()
	node2, containers2 := scrape()
	rate := func(a, b point) float64 { return (b.cpu - a.cpu) / b.at.Sub(a.at).Seconds() }
	require.InDelta(t, 1, rate(node1, node2), 1e-9)
	require.Len(t, containers2, 2)
	require.InDelta(t, 0.5, rate(*containers1["default/p/main"], *containers2["default/p/main"]), 1e-9)
	require.InDelta(t, 0.25, rate(*containers1["default/p/side"], *containers2["default/p/side"]), 1e-9)
	require.InDelta(t, 200<<20, containers2["default/p/main"].memory, 0)
	require.InDelta(t, taken.Unix(), containers2["default/p/side"].started, 0)

	_, body := r.get(t, "/metrics/cadvisor", nil, "good")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err)
	require.Len(t, families["container_cpu_usage_seconds_total"].Metric, 2)
}
