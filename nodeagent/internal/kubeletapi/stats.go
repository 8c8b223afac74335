package kubeletapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Usage is what the node and its pods use of the machine.
type Usage interface {
	// Summary measures; disk says whether that takes in what pods have on the disk.
	Summary(ctx context.Context, disk bool) (*stats.Summary, error)
	// Volumes are what is known of how full persistent volumes are. It does not block.
	Volumes() []stats.VolumeStats
}

func (s *Server) handleStats(mux *http.ServeMux) {
	mux.HandleFunc("GET /stats/summary", func(w http.ResponseWriter, r *http.Request) {
		// CPU and memory alone are cheap: who asks for no more does not have folders walked.
		cheap, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory"))
		summary, err := s.o.Usage.Summary(r.Context(), !cheap)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(summary)
	})
	text := func(families []family) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			summary, err := s.o.Usage.Summary(r.Context(), false)
			if err != nil {
				refuse(w, err)
				return
			}
			var body bytes.Buffer
			write(&body, families, summary)
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = body.WriteTo(w)
		}
	}
	mux.HandleFunc("GET /metrics/resource", text(resourceFamilies))
	mux.HandleFunc("GET /metrics/cadvisor", text(cadvisorFamilies))
	mux.Handle("GET /metrics/probes", promhttp.HandlerFor(s.o.Probes, promhttp.HandlerOpts{}))
	volumes := prometheus.NewRegistry()
	volumes.MustRegister(volumeCollector{s.o.Usage})
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, s.o.GPUs, volumes}, promhttp.HandlerOpts{}))
}
