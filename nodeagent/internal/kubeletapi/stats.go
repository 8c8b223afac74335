package kubeletapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

func (s *Server) handleStats(mux *http.ServeMux) {
	mux.HandleFunc("GET /stats/summary", func(w http.ResponseWriter, r *http.Request) {
		summary, err := s.summary(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(summary)
	})
	text := func(render func(io.Writer, *stats.Summary)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			summary, err := s.summary(r.Context())
			if err != nil {
				refuse(w, err)
				return
			}
			var body bytes.Buffer
			render(&body, summary)
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = body.WriteTo(w)
		}
	}
	mux.HandleFunc("GET /metrics/resource", text(resourceMetrics))
	mux.HandleFunc("GET /metrics/cadvisor", text(cadvisorMetrics))
	mux.Handle("GET /metrics/probes", promhttp.HandlerFor(s.o.Probes, promhttp.HandlerOpts{}))
	mux.Handle("GET /metrics", promhttp.Handler())
}

// summary is what the runtime and the kernel measure, of this node's pods only.
func (s *Server) summary(ctx context.Context) (*stats.Summary, error) {
	now := metav1.NewTime(s.o.Clock.Now())
	sandboxes, err := s.o.Runtime.ListPodSandboxStats(ctx, &runtimeapi.PodSandboxStatsFilter{})
	if err != nil {
		return nil, fmt.Errorf("read the runtime's statistics: %w", err)
	}
	ours := map[string]metav1.Time{}
	for _, p := range s.o.Pods.Pods() {
		ours[string(p.UID)] = ptr.Deref(p.Status.StartTime, p.CreationTimestamp)
	}
	out := &stats.Summary{Node: stats.NodeStats{NodeName: s.o.Node, CPU: nodeCPU(now), Memory: nodeMemory(now)}, Pods: []stats.PodStats{}}
	for _, sandbox := range sandboxes {
		meta := sandbox.GetAttributes().GetMetadata()
		started, ok := ours[meta.GetUid()]
		linux := sandbox.GetLinux()
		if !ok || linux == nil {
			continue
		}
		pod := stats.PodStats{
			PodRef:    stats.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
			StartTime: started,
			CPU:       cpuStats(linux.GetCpu()),
			Memory:    memoryStats(linux.GetMemory()),
		}
		if p := linux.GetProcess(); p != nil {
			pod.ProcessStats = &stats.ProcessStats{ProcessCount: value(p.ProcessCount)}
		}
		for _, c := range linux.GetContainers() {
			pod.Containers = append(pod.Containers, stats.ContainerStats{
				Name: c.GetAttributes().GetMetadata().GetName(), StartTime: started,
				CPU: cpuStats(c.GetCpu()), Memory: memoryStats(c.GetMemory()), Rootfs: layerStats(c.GetWritableLayer()),
			})
		}
		out.Pods = append(out.Pods, pod)
	}
	return out, nil
}

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return ptr.To(v.Value)
}

func at(nanoseconds int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanoseconds)) }

func cpuStats(c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	return &stats.CPUStats{Time: at(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memoryStats(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(m.Timestamp), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes),
		WorkingSetBytes: value(m.WorkingSetBytes), RSSBytes: value(m.RssBytes),
		PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
	}
}

func layerStats(l *runtimeapi.FilesystemUsage) *stats.FsStats {
	if l == nil {
		return nil
	}
	return &stats.FsStats{Time: at(l.Timestamp), UsedBytes: value(l.UsedBytes), InodesUsed: value(l.InodesUsed)}
}

// nodeCPU sums the busy columns of /proc/stat's first line; a tick is 10 ms on
// every Linux that Go runs on.
func nodeCPU(now metav1.Time) *stats.CPUStats {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(first)
	var ticks uint64
	for i, f := range fields {
		n, err := strconv.ParseUint(f, 10, 64)
		// 4 and 5 are idle and iowait, 9 and 10 are guests, counted in user already.
		if err == nil && i > 0 && i < 9 && i != 4 && i != 5 {
			ticks += n
		}
	}
	return &stats.CPUStats{Time: now, UsageCoreNanoSeconds: ptr.To(ticks * uint64(10*time.Millisecond))}
}

func nodeMemory(now metav1.Time) *stats.MemoryStats {
	total, err := machine.Meminfo("/", "MemTotal")
	if err != nil {
		return nil
	}
	free, err := machine.Meminfo("/", "MemAvailable")
	if err != nil {
		return nil
	}
	used := uint64(max(total-free, 0))                                                                                    //nolint:gosec // not negative
	return &stats.MemoryStats{Time: now, AvailableBytes: ptr.To(uint64(free)), UsageBytes: &used, WorkingSetBytes: &used} //nolint:gosec // not negative
}

// sample is one line of the text format.
func sample(w io.Writer, name, labels string, v float64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	_, _ = fmt.Fprintf(w, "%s%s %v\n", name, labels, v)
}

// resourceMetrics are the names that metrics-server reads.
func resourceMetrics(w io.Writer, s *stats.Summary) {
	families := []struct {
		name, kind, help string
		each             func(emit func(labels string, v float64))
	}{
		{"node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", func(emit func(string, float64)) {
			if s.Node.CPU != nil {
				emit("", float64(*s.Node.CPU.UsageCoreNanoSeconds)/1e9)
			}
		}},
		{"node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", func(emit func(string, float64)) {
			if s.Node.Memory != nil {
				emit("", float64(*s.Node.Memory.WorkingSetBytes))
			}
		}},
		{"container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds", func(emit func(string, float64)) {
			eachContainer(s, func(l string, c stats.ContainerStats) {
				if c.CPU != nil && c.CPU.UsageCoreNanoSeconds != nil {
					emit(l, float64(*c.CPU.UsageCoreNanoSeconds)/1e9)
				}
			})
		}},
		{"container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", func(emit func(string, float64)) {
			eachContainer(s, func(l string, c stats.ContainerStats) {
				if c.Memory != nil && c.Memory.WorkingSetBytes != nil {
					emit(l, float64(*c.Memory.WorkingSetBytes))
				}
			})
		}},
		{"container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", func(emit func(string, float64)) {
			eachContainer(s, func(l string, c stats.ContainerStats) { emit(l, float64(c.StartTime.Unix())) })
		}},
		{"pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", func(emit func(string, float64)) {
			for _, p := range s.Pods {
				if p.CPU != nil && p.CPU.UsageCoreNanoSeconds != nil {
					emit(podLabels(p), float64(*p.CPU.UsageCoreNanoSeconds)/1e9)
				}
			}
		}},
		{"pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", func(emit func(string, float64)) {
			for _, p := range s.Pods {
				if p.Memory != nil && p.Memory.WorkingSetBytes != nil {
					emit(podLabels(p), float64(*p.Memory.WorkingSetBytes))
				}
			}
		}},
		{"resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", func(emit func(string, float64)) { emit("", 0) }},
	}
	for _, f := range families {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		f.each(func(labels string, v float64) { sample(w, f.name, labels, v) })
	}
}

// cadvisorMetrics are the containers' usage under cAdvisor's names.
func cadvisorMetrics(w io.Writer, s *stats.Summary) {
	_, _ = io.WriteString(w, "# TYPE container_cpu_usage_seconds_total counter\n")
	eachContainer(s, func(l string, c stats.ContainerStats) {
		if c.CPU != nil && c.CPU.UsageCoreNanoSeconds != nil {
			sample(w, "container_cpu_usage_seconds_total", l, float64(*c.CPU.UsageCoreNanoSeconds)/1e9)
		}
	})
	_, _ = io.WriteString(w, "# TYPE container_memory_working_set_bytes gauge\n")
	eachContainer(s, func(l string, c stats.ContainerStats) {
		if c.Memory != nil && c.Memory.WorkingSetBytes != nil {
			sample(w, "container_memory_working_set_bytes", l, float64(*c.Memory.WorkingSetBytes))
		}
	})
}

func podLabels(p stats.PodStats) string {
	return fmt.Sprintf("namespace=%q,pod=%q", p.PodRef.Namespace, p.PodRef.Name)
}

func eachContainer(s *stats.Summary, do func(labels string, c stats.ContainerStats)) {
	for _, p := range s.Pods {
		for _, c := range p.Containers {
			do(fmt.Sprintf("container=%q,%s", c.Name, podLabels(p)), c)
		}
	}
}
