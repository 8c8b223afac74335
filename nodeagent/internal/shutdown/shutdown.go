// Package shutdown ends the node's pods in time when the machine shuts down, as the
// kubelet's graceful node shutdown does (pkg/kubelet/nodeshutdown): systemd-logind
// tells of it, and waits for a lock. The end of the agent alone ends no pod.
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// Reasons and messages as the kubelet words them.
const (
	reasonEvent      = "NodeShutdown"
	reasonNotLetIn   = "NodeShutdown"
	messageNotLetIn  = "Pod was rejected as the node is shutting down."
	reasonTerminated = "Terminated"
	messageEnded     = "Pod was terminated in response to imminent node shutdown."
	messageNotReady  = "node is shutting down"
)

// A connection that broke or could not be made is tried again, this soon at first
// and no later than that.
const (
	reconnectFirst = time.Second
	reconnectLast  = time.Minute
)

// Pods are the node's pods.
type Pods interface {
	// Active are those that may have processes, those that end already too: they
	// may have more time than the machine has.
	Active() []*corev1.Pod
	// End ends a pod by that verdict, and within its grace if it ends already. What it
	// returns is closed when it is over.
	End(uid types.UID, verdict podstatus.Verdict) <-chan struct{}
	// Flush waits until the API knows the last status of every pod, or ctx ends.
	Flush(ctx context.Context) error
}

// Options of a Manager; all are required.
type Options struct {
	// Dial connects to the system's bus.
	Dial func(ctx context.Context) (*dbus.Conn, error)
	// Grace is how long a shutdown may wait for pods, Critical what of that is kept
	// for critical ones, which end after all others. Without Grace none waits.
	Grace, Critical time.Duration
	// ConfigDir is where logind reads more configuration from.
	ConfigDir string
	// Node is what events about the node refer to.
	Node  func() *corev1.ObjectReference
	Clock clock.Clock
}

// Manager waits for the machine to shut down.
type Manager struct {
	o       Options
	down    atomic.Bool
	changed chan struct{}

	// From here on: Run's alone.
	pods     Pods
	recorder record.EventRecorder
}

// New makes a Manager.
func New(o Options) *Manager { return &Manager{o: o, changed: make(chan struct{}, 1)} }

// NotReady says why the node is not ready; empty unless it is shutting down.
func (m *Manager) NotReady() string {
	if m.down.Load() {
		return messageNotReady
	}
	return ""
}

// Changed has a value when what NotReady says has changed.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Admit refuses new pods, with a reason, while the node is shutting down.
func (m *Manager) Admit(*corev1.Pod) (reason, message string) {
	if m.down.Load() {
		return reasonNotLetIn, messageNotLetIn
	}
	return "", ""
}

// Run follows logind for these pods until ctx ends, and connects again for ever. On a
// machine without logind it does no harm, and no good. Run it once.
func (m *Manager) Run(ctx context.Context, pods Pods, recorder record.EventRecorder) error {
	m.pods, m.recorder = pods, recorder
	if m.o.Grace <= 0 {
		<-ctx.Done()
		return nil
	}
	delay := reconnectFirst
	for failures := 0; ; failures++ {
		opened, err := m.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if opened {
			delay, failures = reconnectFirst, 0
		}
		if failures == 0 {
			klog.FromContext(ctx).Info("Shutdowns of the machine are not noticed, trying again; until then they end pods without grace", "cause", err)
		}
		timer := m.o.Clock.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
		delay = min(2*delay, reconnectLast)
	}
}

// follow holds the lock and deals with signals as long as the connection lasts.
// opened says that it stood.
func (m *Manager) follow(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := m.o.Dial(ctx)
	if err != nil {
		return false, fmt.Errorf("connect to the system's bus: %w", err)
	}
	defer func() { _ = conn.Close() }()
	l := logind{conn}
	granted, err := m.granted(ctx, l)
	if err != nil {
		return false, err
	}
	signals, err := l.watch(ctx) // before the lock: none is missed
	if err != nil {
		return false, err
	}
	lock, err := l.inhibit(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	klog.FromContext(ctx).Info("A shutdown of the machine waits for its pods", "atMost", granted)
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case down, ok := <-signals:
			if !ok {
				return true, errors.New("the connection to the system's bus broke")
			}
			if down {
				m.note(ctx, true, "the machine shuts down, pods are ended")
				m.end(ctx, granted)
				_ = lock.Close()
				continue
			}
			m.note(ctx, false, "the machine does not shut down after all")
			_ = lock.Close()
			if lock, err = l.inhibit(ctx); err != nil {
				return true, err
			}
		}
	}
}

// granted is how long logind will wait: as long as was asked for, if it can be made to.
func (m *Manager) granted(ctx context.Context, l logind) (time.Duration, error) {
	delay, err := l.delay()
	if err != nil || delay >= m.o.Grace {
		return min(delay, m.o.Grace), err
	}
	if err := l.extend(ctx, m.o.Grace, m.o.ConfigDir); err != nil {
		klog.FromContext(ctx).Error(err, "A shutdown waits for less than it should", "atMost", delay)
		return delay, nil
	}
	// It answers before it has done so.
	for wait := 100 * time.Millisecond; delay < m.o.Grace && wait < 2*time.Second; wait *= 2 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-m.o.Clock.After(wait):
		}
		if delay, err = l.delay(); err != nil {
			return 0, err
		}
	}
	return min(delay, m.o.Grace), nil
}

func (m *Manager) note(ctx context.Context, down bool, message string) {
	m.down.Store(down)
	select {
	case m.changed <- struct{}{}:
	default:
	}
	klog.FromContext(ctx).Info("Shutdown", "message", message)
	m.recorder.Event(m.o.Node(), corev1.EventTypeNormal, reasonEvent, message)
}

// end ends all pods, the critical ones last, and returns when they are over and the
// API knows, or the time is up.
func (m *Manager) end(ctx context.Context, granted time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := m.o.Clock.NewTimer(granted)
	defer up.Stop()
	go func() {
		select {
		case <-up.C():
			cancel()
		case <-ctx.Done():
		}
	}()
	ordinary, critical := groups(m.pods.Active())
	forCritical := time.Duration(float64(m.o.Critical) * float64(granted) / float64(m.o.Grace))
	m.endGroup(ctx, ordinary, granted-forCritical)
	m.endGroup(ctx, critical, forCritical)
	if err := m.pods.Flush(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The API does not know the end of every pod")
	}
}

// endGroup ends the pods at once, each within its own grace and the group's.
func (m *Manager) endGroup(ctx context.Context, pods []*corev1.Pod, within time.Duration) {
	if len(pods) == 0 {
		return
	}
	timer := m.o.Clock.NewTimer(within)
	defer timer.Stop()
	var all sync.WaitGroup
	ended := make(chan struct{})
	for _, pod := range pods {
		over := m.pods.End(pod.UID, podstatus.Verdict{
			Reason: reasonTerminated, Message: messageEnded, Grace: &within, Disruption: true,
		})
		all.Go(func() {
			select {
			case <-over:
			case <-ctx.Done():
			}
		})
	}
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-timer.C():
		klog.FromContext(ctx).Info("Not all pods ended in time", "pods", len(pods), "within", within)
	}
}

// systemCritical is the least priority of a critical pod (pkg/apis/scheduling).
const systemCritical = 2_000_000_000

func groups(pods []*corev1.Pod) (ordinary, critical []*corev1.Pod) {
	for _, pod := range pods {
		if schedulingv1.PodPriority(pod) >= systemCritical {
			critical = append(critical, pod)
		} else {
			ordinary = append(ordinary, pod)
		}
	}
	return ordinary, critical
}
