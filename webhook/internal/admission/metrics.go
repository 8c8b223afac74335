package admission

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ainode/ainode/api/contract"
)

// Metrics is the Observer that counts.
type Metrics struct {
	findings *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics makes the counters and registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ainode_webhook_findings_total",
			Help: "What the support table said about pods and workloads, by feature and action.",
		}, []string{"feature", "action"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ainode_webhook_admission_duration_seconds",
			Help:    "Time from a review's first byte to its answer, by endpoint.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
		}, []string{"endpoint"}),
	}
	for _, c := range []prometheus.Collector{m.findings, m.seconds} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// Observe counts one answer.
func (m *Metrics) Observe(endpoint string, findings []contract.Finding, took time.Duration) {
	m.seconds.WithLabelValues(endpoint).Observe(took.Seconds())
	for _, f := range findings {
		m.findings.WithLabelValues(string(f.Feature), string(f.Action)).Inc()
	}
}
