package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/imagegc"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
	"github.com/ainode/ainode/nodeagent/internal/shutdown"
	"github.com/ainode/ainode/nodeagent/internal/term"
	"github.com/ainode/ainode/nodeagent/internal/usage"
)

// pressure is what keeps the node from taking pods although it runs.
type pressure struct {
	gauge *eviction.Gauge
	down  *shutdown.Manager
	end   *term.Manager
}

func (t *tenant) newPressure(node func() *corev1.Node, end *term.Manager) (*pressure, error) {
	readings, thresholds, err := t.limits()
	if err != nil {
		return nil, err
	}
	return &pressure{gauge: eviction.NewGauge(readings.Read, thresholds, t.clock), down: t.newShutdown(node), end: end}, nil
}

// limits are where it is read how much there is, and how much of it must stay free.
func (t *tenant) limits() (eviction.Machine, eviction.Thresholds, error) {
	thresholds, err := eviction.Parse(t.cfg.EvictionHard)
	if err != nil {
		return eviction.Machine{}, nil, fmt.Errorf("read --eviction-hard: %w", err)
	}
	return eviction.Machine{Root: "/", NodeFs: string(t.cfg.StateDir), ImageFs: t.imageDisk}, thresholds, nil
}

// admit refuses a new pod with a reason, or lets it in with none.
func (p *pressure) admit(pod *corev1.Pod) (reason, message string) {
	if reason, message = p.gauge.Admit(pod); reason == "" {
		reason, message = p.down.Admit(pod)
	}
	if reason == "" {
		reason, message = p.end.Admit(pod)
	}
	return reason, message
}

// health is what is wrong with the machine.
func (t *tenant) health(ctx context.Context, p *pressure, pods podNetwork) nodestatus.Health {
	h := pods.health(nodestatus.Probe(ctx, t.runtime, pods.own()))
	if h.NotReady == "" { // what does not answer keeps its settings
		t.askInjection(ctx)
	}
	h.Pressures = p.gauge.Conditions(ctx)
	h.GPUs = t.cardHealth()
	h.NotReady, h.Full = cmp.Or(p.down.NotReady(), p.end.NotReady(), h.NotReady), p.end.Full()
	return h
}

// newMeter makes what measures the node and its pods.
func (t *tenant) newMeter(rooms *podRooms) *usage.Meter {
	return usage.New(usage.Options{
		Runtime: t.runtime, Pods: rooms.Pods, Containers: rooms.Containers, Volumes: rooms.volumes.OnDisk, Claims: rooms.volumes.Figures, Clock: t.clock,
		Node: usage.Node{
			Name: t.node, Root: "/", Folder: string(t.cfg.StateDir), ImageDisk: t.imageDisk, Cgroup: t.cfg.CgroupParent,
		},
		LogDirectory: func(pod *corev1.Pod) string { return crispec.LogDirectory(t.cfg.LogDir, pod) },
	})
}

// evictable are the pods as the eviction room sees them.
type evictable struct {
	*podRooms
	meter *usage.Meter
}

func (e evictable) Usage(ctx context.Context, measure func(*corev1.Pod) bool) ([]stats.PodStats, error) {
	return e.meter.WithDisk(ctx, measure)
}

// newEvictions makes what ends pods before the machine runs out of something.
func (t *tenant) newEvictions(gauge *eviction.Gauge, rooms *podRooms, meter *usage.Meter, collector *imagegc.Collector, node func() *corev1.Node, recorder record.EventRecorder) *eviction.Manager {
	return eviction.New(eviction.Options{
		Gauge: gauge, Pods: evictable{rooms, meter}, OneDisk: t.oneDisk, Recorder: recorder, Clock: t.clock,
		Node: func() *corev1.ObjectReference { return nodeRef(node()) },
		Reclaim: func(ctx context.Context, images bool) error {
			if !images {
				return nil // what buckets' cache is on was taken at once, and gives nothing back
			}
			// Dead containers first: they keep images in use.
			return errors.Join(rooms.RemoveDead(ctx), collector.RemoveUnused(ctx))
		},
	})
}

// oneDisk reports whether images and writable layers are on the disk with logs and
// volumes; also if that can't be told.
func (t *tenant) oneDisk(ctx context.Context) bool {
	images, err := t.imageDisk(ctx)
	if err != nil {
		return true
	}
	own, err := machine.DiskOf(string(t.cfg.StateDir))
	return err != nil || own.Device == images.Device
}
