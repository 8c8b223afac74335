package kubeletapi

import (
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// family is a metric; its samples are written by calls of emit.
type family struct {
	name, kind, help string
	each             func(s *stats.Summary, emit emitter)
}

// emitter writes a sample. A time that is not zero is when it was taken: rates are
// right only if they are made from that, not from when somebody asked.
type emitter func(labels string, value float64, at metav1.Time)

// resourceFamilies are the kubelet's metrics/resource
// (pkg/kubelet/metrics/collectors/resource_metrics.go), which metrics-server reads.
var resourceFamilies = []family{
	{"node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", func(s *stats.Summary, emit emitter) {
		cpu("", s.Node.CPU, emit)
	}},
	{"node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", func(s *stats.Summary, emit emitter) {
		workingSet("", s.Node.Memory, emit)
	}},
	{"container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds", eachContainer(
		func(labels string, c *stats.ContainerStats, emit emitter) { cpu(labels, c.CPU, emit) })},
	{"container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", eachContainer(
		func(labels string, c *stats.ContainerStats, emit emitter) { workingSet(labels, c.Memory, emit) })},
	{"container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", eachContainer(
		func(labels string, c *stats.ContainerStats, emit emitter) {
			emit(labels, float64(c.StartTime.UnixNano())/1e9, metav1.Time{})
		})},
	{"pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", func(s *stats.Summary, emit emitter) {
		for i := range s.Pods {
			cpu(podLabels(&s.Pods[i]), s.Pods[i].CPU, emit)
		}
	}},
	{"pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", func(s *stats.Summary, emit emitter) {
		for i := range s.Pods {
			workingSet(podLabels(&s.Pods[i]), s.Pods[i].Memory, emit)
		}
	}},
	{"resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", func(_ *stats.Summary, emit emitter) {
		emit("", 0, metav1.Time{})
	}},
}

// cadvisorFamilies are the containers' usage, which cAdvisor has under the same names.
var cadvisorFamilies = resourceFamilies[2:4]

// write renders the families in Prometheus' text format.
func write(w io.Writer, families []family, s *stats.Summary) {
	for _, f := range families {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		f.each(s, func(labels string, value float64, at metav1.Time) {
			if labels != "" {
				labels = "{" + labels + "}"
			}
			if at.IsZero() {
				_, _ = fmt.Fprintf(w, "%s%s %v\n", f.name, labels, value)
				return
			}
			_, _ = fmt.Fprintf(w, "%s%s %v %d\n", f.name, labels, value, at.UnixMilli())
		})
	}
}

func cpu(labels string, c *stats.CPUStats, emit emitter) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		emit(labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time)
	}
}

func workingSet(labels string, m *stats.MemoryStats, emit emitter) {
	if m != nil && m.WorkingSetBytes != nil {
		emit(labels, float64(*m.WorkingSetBytes), m.Time)
	}
}

func podLabels(p *stats.PodStats) string {
	return fmt.Sprintf("namespace=%q,pod=%q", p.PodRef.Namespace, p.PodRef.Name)
}

func eachContainer(do func(labels string, c *stats.ContainerStats, emit emitter)) func(*stats.Summary, emitter) {
	return func(s *stats.Summary, emit emitter) {
		for i := range s.Pods {
			p := &s.Pods[i]
			for j := range p.Containers {
				do(fmt.Sprintf("container=%q,%s", p.Containers[j].Name, podLabels(p)), &p.Containers[j], emit)
			}
		}
	}
}
