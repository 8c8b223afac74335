package term

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

const (
	reasonEnds  = "BindingEnds"  // of events, and of pods that are not let in
	reasonEnded = "BindingEnded" // of pods that the node has ended
	notReady    = "the node's binding has ended"
)

const (
	// every is how often the clock is looked at: a machine that slept has timers that
	// did not run.
	every = 10 * time.Second
	// again is the pause between two tries to evict a pod whose disruption budget does
	// not let it go, as kubectl drain makes it.
	again = 5 * time.Second
	// ask is how long the API may take to answer, where it can be done without it.
	ask = 3 * time.Second
)

// Pods are the node's pods.
type Pods interface {
	// Active are those that may have processes, those that have been told to end too.
	Active() []*corev1.Pod
	// End ends a pod by that verdict, and within its grace if it ends already. What it
	// returns is closed when it is over.
	End(uid types.UID, verdict podstatus.Verdict) <-chan struct{}
	// Flush waits until the API knows the last status of every pod, or ctx ends.
	Flush(ctx context.Context) error
}

// Options of a Manager; all are required.
type Options struct {
	Known *Known
	// HubTime is what time it is at the hub; false if it has not answered since this
	// machine booted. It must not block.
	HubTime func() (now time.Time, heard bool)
	// Evict asks the API to evict a pod.
	Evict func(ctx context.Context, pod *corev1.Pod) error
	// Node is what events about the node refer to.
	Node  func() *corev1.ObjectReference
	Clock clock.Clock
}

// Manager waits for the end.
type Manager struct {
	o       Options
	stage   atomic.Int32
	changed chan struct{}

	// From here on: Run's alone.
	pods     Pods
	recorder record.EventRecorder
	end      End
	told     map[types.UID]Stage
	ending   map[types.UID]ending
}

// ending is a pod that has been told to end.
type ending struct {
	// until is when it has to be over.
	until time.Time
	// over is closed when it is.
	over <-chan struct{}
}

// New makes a Manager.
func New(o Options) *Manager { return &Manager{o: o, changed: make(chan struct{}, 1)} }

// Full reports whether the node takes no pods any more.
func (m *Manager) Full() bool { return Stage(m.stage.Load()) >= Draining }

// NotReady says why the node is not ready; empty before the binding has ended.
func (m *Manager) NotReady() string {
	if Stage(m.stage.Load()) == Over {
		return notReady
	}
	return ""
}

// Changed has a value when what Full or NotReady says has changed.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Admit refuses new pods, with a reason, once the binding is about to end.
func (m *Manager) Admit(*corev1.Pod) (reason, message string) {
	if !m.Full() {
		return "", ""
	}
	end, _ := m.o.Known.Get()
	return reasonEnds, "Pod was rejected as the node's binding ends at " + end.Until.UTC().Format(time.RFC3339) + "."
}

// Run looks after the end until ctx ends. Run it once.
func (m *Manager) Run(ctx context.Context, pods Pods, recorder record.EventRecorder) error {
	m.pods, m.recorder, m.ending = pods, recorder, map[types.UID]ending{}
	for {
		end, changed := m.o.Known.Get()
		if !end.Equal(m.end) || m.told == nil {
			m.end, m.told = end, map[types.UID]Stage{}
		}
		timer := m.o.Clock.NewTimer(m.look(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C():
		}
	}
}

// look does what is due, and says after how long to look again.
func (m *Manager) look(ctx context.Context) time.Duration {
	if m.end.IsZero() {
		m.reach(ctx, Open)
		return time.Hour // an end that is given later is told
	}
	now, heard := m.now()
	stage := m.end.Stage(now)
	m.reach(ctx, stage)
	wait := every
	switch stage {
	case Open:
	case Announced:
		m.tell(stage)
	case Draining, Over:
		m.tell(stage)
		wait = min(wait, m.send(ctx, stage, now))
	}
	m.o.Known.reached(m.end, stage, stage == Over && m.finished(ctx))
	if next := m.end.next(now); next > 0 && heard {
		wait = min(wait, next)
	}
	return wait
}

// now is the time that both clocks have come to, the machine's and the hub's. One that is
// borne out by nobody takes nothing away: it never comes to where draining begins.
func (m *Manager) now() (now time.Time, heard bool) {
	local := m.o.Clock.Now()
	hub, heard := m.o.HubTime()
	if heard {
		return Agreed(local, hub), true
	}
	if before := m.end.drain().Add(-time.Nanosecond); before.Before(local) {
		return before, false
	}
	return local, false
}

// reach notes a stage, and tells of it where it is another.
func (m *Manager) reach(ctx context.Context, stage Stage) {
	before := Stage(m.stage.Swap(int32(stage)))
	if before == stage {
		return
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	if stage == Open {
		klog.FromContext(ctx).Info("The binding does not end yet after all")
		return
	}
	klog.FromContext(ctx).Info("The binding ends", "until", m.end.Until, "stage", stage, "drainGrace", m.end.DrainGrace)
	m.recorder.Event(m.o.Node(), corev1.EventTypeNormal, reasonEnds, m.words(stage, "Node"))
}

// words tell a pod, or the node, of the end.
func (m *Manager) words(stage Stage, whose string) string {
	at := m.end.Until.UTC().Format(time.RFC3339)
	switch {
	case stage == Over:
		return whose + " is given back: the node's binding has ended at " + at
	case stage == Draining && whose == "Node":
		return "The node's binding ends at " + at + ": no pods are taken any more, those here are evicted"
	case stage == Draining:
		return whose + " is evicted: the node's binding ends at " + at
	}
	return fmt.Sprintf("The node's binding ends at %s; pods are evicted from %s on", at, m.end.drain().UTC().Format(time.RFC3339))
}

// tell tells each pod once a stage.
func (m *Manager) tell(stage Stage) {
	for _, pod := range m.pods.Active() {
		if _, ends := m.ending[pod.UID]; !ends && m.told[pod.UID] < stage && pod.DeletionTimestamp == nil {
			m.told[pod.UID] = stage
			m.recorder.Event(pod, corev1.EventTypeWarning, reasonEnds, m.words(stage, "Pod"))
		}
	}
}

// send ends the pods whose time has come and has the API evict the others. It returns
// after how long to look again.
func (m *Manager) send(ctx context.Context, stage Stage, now time.Time) time.Duration {
	wait := again
	var others []*corev1.Pod
	// All that are due first: an eviction may take its time.
	for _, pod := range m.pods.Active() {
		if told, ends := m.ending[pod.UID]; ends && !m.end.Until.Before(told.until) {
			continue
		}
		if due := m.end.endOf(pod); stage == Over || !now.Before(due) {
			left := max(m.end.Until.Sub(now), 0)
			m.ending[pod.UID] = ending{m.end.Until, m.pods.End(pod.UID, podstatus.Verdict{
				Reason: reasonEnded, Message: "Pod was ended: " + m.words(Over, "Node") + ".", Grace: &left, Disruption: true,
			})}
		} else {
			wait = min(wait, due.Sub(now))
			if pod.DeletionTimestamp == nil {
				others = append(others, pod)
			}
		}
	}
	began := m.o.Clock.Now()
	m.evict(ctx, others, wait)
	return max(wait-m.o.Clock.Since(began), 0)
}

// evict has the API evict pods for no longer than that: whatever is left is asked for the
// next time. A target that is out of reach is not asked for each of them.
func (m *Manager) evict(ctx context.Context, pods []*corev1.Pod, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for _, pod := range pods {
		err := m.evictOne(ctx, pod)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			continue
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return
		}
		klog.FromContext(ctx).Info("Pod not evicted, trying again", "pod", klog.KObj(pod), "cause", err.Error())
		if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
			return // not an answer
		}
	}
}

func (m *Manager) evictOne(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, ask)
	defer cancel()
	return m.o.Evict(ctx, pod)
}

// finished reports whether nothing runs any more and the API knows it.
func (m *Manager) finished(ctx context.Context) bool {
	if len(m.pods.Active()) > 0 {
		return false
	}
	for uid, e := range m.ending {
		select {
		case <-e.over:
			delete(m.ending, uid)
		default:
			return false
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ask)
	defer cancel()
	if err := m.pods.Flush(ctx); err != nil {
		klog.FromContext(ctx).Info("The API does not know the end of every pod", "cause", err.Error())
	}
	return true
}
