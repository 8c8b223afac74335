package probes

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// counts are the kubelet's own (pkg/kubelet/prober/prober_manager.go), since people
// have dashboards of them.
var counts = newCounters()

// Metrics are what GET /metrics/probes shows.
func Metrics() prometheus.Gatherer { return counts.registry }

type counters struct {
	registry *prometheus.Registry
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newCounters() *counters {
	c := &counters{
		registry: prometheus.NewRegistry(),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prober_probe_total",
			Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prober_probe_duration_seconds",
			Help: "Duration in seconds for a probe response.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
	}
	c.registry.MustRegister(c.total, c.duration)
	return c
}

func (c *counters) note(p *probe, a answer, err error, took time.Duration) {
	result := "failed"
	switch {
	case err != nil:
		result = "unknown"
	case a.ok:
		result = "successful"
	}
	c.total.WithLabelValues(string(p.kind), result, p.container.Spec.Name, p.pod.Name, p.pod.Namespace, string(p.pod.UID)).Inc()
	if result != "failed" { // a failure often is the timeout itself
		c.duration.WithLabelValues(string(p.kind), p.container.Spec.Name, p.pod.Name, p.pod.Namespace).Observe(took.Seconds())
	}
}

// forget drops a pod that is gone.
func (c *counters) forget(pod *corev1.Pod) {
	c.total.DeletePartialMatch(prometheus.Labels{"pod_uid": string(pod.UID)})
	c.duration.DeletePartialMatch(prometheus.Labels{"namespace": pod.Namespace, "pod": pod.Name})
}
