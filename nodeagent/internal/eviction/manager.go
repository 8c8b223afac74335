package eviction

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

const (
	// every is how often the machine is looked at, the kubelet's evictionMonitoringPeriod.
	every = 10 * time.Second
	// cleanup is how long an evicted pod may take to free what it holds before the
	// next one is looked for (podCleanupTimeout).
	cleanup = 30 * time.Second
	// grace is what a pod gets to end (immediateEvictionGracePeriodSeconds).
	grace = time.Second
)

// Event reasons, as the kubelet names them.
const reasonThresholdMet = "EvictionThresholdMet"

// Pods are the node's pods and what they use.
type Pods interface {
	// Active are the pods that have processes, or may have, those that end already too.
	Active() []*corev1.Pod
	// Usage is what pods use; disk is measured of those of which measure is true.
	Usage(ctx context.Context, measure func(*corev1.Pod) bool) ([]stats.PodStats, error)
	// Evict ends a pod by that verdict; one that ends already keeps its own and loses what
	// it has of grace beyond the verdict's. over is closed when the pod holds nothing any
	// more; ours says that it ends by this verdict, sooner that it ends sooner for it.
	Evict(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours, sooner bool)
}

// Options of a Manager; all are required.
type Options struct {
	Gauge *Gauge
	Pods  Pods
	// Reclaim frees disk that no pod needs; images and dead containers too if images:
	// on another disk they give nothing back to the node's own.
	Reclaim func(ctx context.Context, images bool) error
	// OneDisk reports whether images and writable layers are on the disk with logs and
	// volumes.
	OneDisk  func(ctx context.Context) bool
	Recorder record.EventRecorder
	// Node is what events about the node refer to.
	Node  func() *corev1.ObjectReference
	Clock clock.WithTicker
}

// Manager evicts pods.
type Manager struct {
	o Options
	// leaving are the pods that look has waited for: it goes on without them. look alone
	// has it.
	leaving map[types.UID]bool
}

// New makes a Manager.
func New(o Options) *Manager { return &Manager{o: o, leaving: map[types.UID]bool{}} }

// Run looks at the machine every ten seconds until ctx ends, and as often at the pods
// that have limits on disk. A look at a machine that is short of nothing reads a few
// files, and asks the runtime where its images are; a look at the limits asks it what
// pods use, and measures their folders, each once a minute at most.
func (m *Manager) Run(ctx context.Context) error {
	var limits sync.WaitGroup
	defer limits.Wait()
	// Apart: who has millions of files must not hold up what memory needs.
	limits.Go(func() { m.repeat(ctx, m.overLimit) })
	m.repeat(ctx, m.look)
	return nil
}

// repeat looks again and again, and at once when what was ended is over: was it
// enough?
func (m *Manager) repeat(ctx context.Context, look func(context.Context) []<-chan struct{}) {
	ticker := m.o.Clock.NewTicker(every)
	defer ticker.Stop()
	for {
		ended := look(ctx)
		for _, e := range ended {
			m.await(ctx, e)
		}
		if len(ended) > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// await waits until an evicted pod holds nothing any more, but not for ever.
func (m *Manager) await(ctx context.Context, ended <-chan struct{}) {
	timer := m.o.Clock.NewTimer(cleanup)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-ended:
	case <-timer.C():
		klog.FromContext(ctx).Info("An evicted pod still holds something, going on without it")
	}
}

// look evicts, if the machine is short of something that nobody but pods can give
// back, the first in rank.
func (m *Manager) look(ctx context.Context) (ended []<-chan struct{}) {
	readings, met := m.o.Gauge.observe(ctx)
	if len(met) == 0 {
		return nil
	}
	signal := met[0]
	m.o.Recorder.Eventf(m.o.Node(), corev1.EventTypeWarning, reasonThresholdMet, "Attempting to reclaim %s", resourceOf(signal))
	if conditionOf(signal) == corev1.NodeDiskPressure {
		if err := m.o.Reclaim(ctx, ofImages(signal) || m.o.OneDisk(ctx)); err != nil {
			klog.FromContext(ctx).Error(err, "Not all of the disk that no pod needs is freed")
		}
		if readings, met = m.o.Gauge.observe(ctx); len(met) == 0 {
			return nil
		}
		signal = met[0]
	}
	if next := m.next(ctx, signal, readings[signal]); next != nil {
		return []<-chan struct{}{next}
	}
	return nil
}

// overLimit evicts every pod that uses more disk than its limits allow.
func (m *Manager) overLimit(ctx context.Context) (ended []<-chan struct{}) {
	var some []*corev1.Pod
	for _, pod := range m.o.Pods.Active() {
		if limited(pod) {
			some = append(some, pod)
		}
	}
	if len(some) == 0 {
		return nil
	}
	oneDisk := m.o.OneDisk(ctx)
	for _, c := range m.candidates(ctx, some, limited) {
		if message := exceeded(c, oneDisk); message != "" && !critical(c.pod) {
			if over, sooner := m.evict(ctx, c.pod, nil, podstatus.Verdict{Message: message}); sooner {
				ended = append(ended, over)
			}
		}
	}
	return ended
}

// next evicts the first in rank that may be evicted, and returns what to wait for; nil if
// there is none. One that ends as soon without that is waited for once: what it holds may
// be all that is short.
func (m *Manager) next(ctx context.Context, signal Signal, reading Reading) <-chan struct{} {
	disk := conditionOf(signal) == corev1.NodeDiskPressure
	active := m.o.Pods.Active()
	maps.DeleteFunc(m.leaving, func(uid types.UID, _ bool) bool {
		return !slices.ContainsFunc(active, func(p *corev1.Pod) bool { return p.UID == uid })
	})
	all := m.candidates(ctx, active, func(*corev1.Pod) bool { return disk })
	rank(signal, disk && m.o.OneDisk(ctx), all)
	for _, c := range all {
		if critical(c.pod) {
			continue
		}
		message, annotations := starved(signal, c, reading, m.o.Gauge.thresholds.Kept(signal, reading.Capacity))
		over, sooner := m.evict(ctx, c.pod, annotations, podstatus.Verdict{Message: message, Disruption: true})
		if sooner || !m.leaving[c.pod.UID] {
			m.leaving[c.pod.UID] = true
			return over
		}
	}
	klog.FromContext(ctx).Info("The machine is short of something, and no pod can be evicted", "signal", signal)
	return nil
}

// evict ends a pod, or cuts the grace of one that ends already; sooner is false if it ends
// as soon without that. It is told of a pod that ends for this alone.
func (m *Manager) evict(ctx context.Context, pod *corev1.Pod, annotations map[string]string, verdict podstatus.Verdict) (over <-chan struct{}, sooner bool) {
	verdict.Reason, verdict.Grace = Reason, ptr.To(grace)
	over, ours, sooner := m.o.Pods.Evict(pod.UID, verdict)
	switch logger := klog.FromContext(ctx).WithValues("pod", klog.KObj(pod), "podUID", pod.UID, "message", verdict.Message); {
	case ours:
		logger.Info("Pod evicted")
		m.o.Recorder.AnnotatedEventf(pod, annotations, corev1.EventTypeWarning, Reason, "%s", verdict.Message)
	case sooner:
		logger.Info("The grace of a pod that ends already is cut")
	}
	return over, sooner
}

// candidates are the pods with what they use; none if that can't be told of any:
// nobody is evicted blindly.
func (m *Manager) candidates(ctx context.Context, pods []*corev1.Pod, measure func(*corev1.Pod) bool) []candidate {
	used, err := m.o.Pods.Usage(ctx, measure)
	if err != nil {
		klog.FromContext(ctx).Error(err, "What pods use is not known")
		return nil
	}
	byUID := map[string]*stats.PodStats{}
	for i := range used {
		byUID[used[i].PodRef.UID] = &used[i]
	}
	var all []candidate
	for _, pod := range pods {
		all = append(all, candidate{pod: pod, used: byUID[string(pod.UID)]})
	}
	return all
}
