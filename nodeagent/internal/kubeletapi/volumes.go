package kubeletapi

import (
	"github.com/prometheus/client_golang/prometheus"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// volumeGauges are the kubelet's metrics of claims
// (pkg/kubelet/metrics/collectors/volume_stats.go).
var volumeGauges = func() []volumeGauge {
	gauge := func(name, help string, of func(*stats.VolumeStats) *uint64) volumeGauge {
		return volumeGauge{prometheus.NewDesc("kubelet_volume_stats_"+name, help, []string{"namespace", "persistentvolumeclaim"}, nil), of}
	}
	return []volumeGauge{
		gauge("capacity_bytes", "Size of the volume in bytes.", func(s *stats.VolumeStats) *uint64 { return s.CapacityBytes }),
		gauge("available_bytes", "Bytes of the volume that can still be written.", func(s *stats.VolumeStats) *uint64 { return s.AvailableBytes }),
		gauge("used_bytes", "Bytes of the volume that are used.", func(s *stats.VolumeStats) *uint64 { return s.UsedBytes }),
		gauge("inodes", "Most inodes that the volume can have.", func(s *stats.VolumeStats) *uint64 { return s.Inodes }),
		gauge("inodes_free", "Inodes of the volume that are free.", func(s *stats.VolumeStats) *uint64 { return s.InodesFree }),
		gauge("inodes_used", "Inodes of the volume that are used.", func(s *stats.VolumeStats) *uint64 { return s.InodesUsed }),
	}
}()

type volumeGauge struct {
	desc *prometheus.Desc
	of   func(*stats.VolumeStats) *uint64
}

// volumeCollector shows what is known of claims at that moment.
type volumeCollector struct{ usage Usage }

// Describe implements prometheus.Collector.
func (volumeCollector) Describe(to chan<- *prometheus.Desc) {
	for _, g := range volumeGauges {
		to <- g.desc
	}
}

// Collect implements prometheus.Collector. A claim that several pods have is told once: of
// a series there is one.
func (c volumeCollector) Collect(to chan<- prometheus.Metric) {
	told := map[stats.PVCReference]bool{}
	for _, s := range c.usage.Volumes() {
		if s.PVCRef == nil || told[*s.PVCRef] {
			continue
		}
		told[*s.PVCRef] = true
		for _, g := range volumeGauges {
			if n := g.of(&s); n != nil {
				to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(*n), s.PVCRef.Namespace, s.PVCRef.Name)
			}
		}
	}
}
