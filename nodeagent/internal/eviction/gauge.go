package eviction

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// Reason of a pod that was evicted, and of one that is not let in.
const Reason = "Evicted"

// transition is how long a pressure is told after it was seen last, so that it does
// not come and go with every pod: the kubelet's evictionPressureTransitionPeriod.
const transition = 5 * time.Minute

// Gauge tells what the machine is short of. It is safe for concurrent use.
type Gauge struct {
	read       func(context.Context) Readings
	thresholds Thresholds
	clock      clock.PassiveClock

	mu    sync.Mutex
	known bool
	// last is when a pressure was seen last.
	last map[corev1.NodeConditionType]time.Time
}

// NewGauge makes a Gauge on what read returns.
func NewGauge(read func(context.Context) Readings, thresholds Thresholds, clock clock.PassiveClock) *Gauge {
	return &Gauge{read: read, thresholds: thresholds, clock: clock, last: map[corev1.NodeConditionType]time.Time{}}
}

// observe takes readings, and returns them and the signals whose thresholds are met.
func (g *Gauge) observe(ctx context.Context) (Readings, []Signal) {
	readings := g.read(ctx)
	met := g.thresholds.Met(readings)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = true
	for _, s := range met {
		g.last[conditionOf(s)] = g.clock.Now()
	}
	return readings, met
}

// Conditions are the pressures that the node tells, in alphabetical order; the first
// call takes readings.
func (g *Gauge) Conditions(ctx context.Context) []corev1.NodeConditionType {
	g.mu.Lock()
	known := g.known
	g.mu.Unlock()
	if !known {
		g.observe(ctx)
	}
	return g.conditions()
}

func (g *Gauge) conditions() []corev1.NodeConditionType {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []corev1.NodeConditionType
	for condition, at := range g.last {
		if g.clock.Since(at) < transition {
			all = append(all, condition)
		}
	}
	slices.Sort(all)
	return all
}

// Admit refuses a new pod while the node is under pressure, with a reason: under
// pressure on memory alone those that ask for none, else all but critical ones. The
// empty reason lets it in.
func (g *Gauge) Admit(pod *corev1.Pod) (reason, message string) {
	pressed := g.conditions()
	if len(pressed) == 0 || critical(pod) {
		return "", ""
	}
	if slices.Equal(pressed, []corev1.NodeConditionType{corev1.NodeMemoryPressure}) {
		taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
		if podstatus.QOS(pod) != corev1.PodQOSBestEffort ||
			schedulingv1.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, &taint, true) {
			return "", ""
		}
	}
	return Reason, fmt.Sprintf("The node had condition: %v. ", pressed)
}

// systemCritical is the least priority of a pod that is never evicted
// (pkg/apis/scheduling SystemCriticalPriority).
const systemCritical = 2_000_000_000

func critical(pod *corev1.Pod) bool { return schedulingv1.PodPriority(pod) >= systemCritical }
