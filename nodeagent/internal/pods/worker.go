package pods

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/probes"
	"github.com/ainode/ainode/nodeagent/internal/statuswriter"
)

// worker runs one pod UID. Its goroutine alone takes steps; what others may read
// or change stands under mu.
type worker struct {
	m      *Manager
	uid    types.UID
	writer *statuswriter.Writer
	probes *probes.Set
	wake   chan struct{}
	news   chan struct{} // for the mounted volumes

	mu sync.Mutex
	// pod is the newest object known; nil for a pod found in the runtime of which
	// nothing else is known yet.
	pod *corev1.Pod
	// ahead is the version known when it was seen last that the watch lags behind it.
	ahead uint64
	// absent says that the API has no pod of this UID (any more).
	absent bool
	// released says that nothing of the pod lives: it counts no more.
	released bool
	// interrupt ends what the worker waits for (a pull, a grace period);
	// interrupts counts the reasons to, so that one is not missed.
	interrupt  context.CancelFunc
	interrupts int
	// deleted says that the worker has deleted the API object itself; goneSeen that
	// the API has told so since.
	deleted, goneSeen bool
	// ordered is the verdict of the node, if it ends the pod for its own sake, and endBy
	// when the node wants it to have ended at the latest, by whatever verdict; zero: when
	// its own grace is over, which ownEnd says once that runs. over is closed when the pod is dead and its volumes are gone,
	// or have been tried once.
	ordered *podstatus.Verdict
	endBy   time.Time
	ownEnd  time.Time
	over    chan struct{}
	// ended says that all of it has ended of itself and it is being buried.
	ended bool
	// verdict is what the pod ends by; its goroutine alone writes it, and may read it
	// without mu.
	verdict *podstatus.Verdict
	// granted are the resources that the pod may use, nil for what it asked for at
	// first; wants says that it has asked for others since.
	granted granted
	wants   bool
	// services are the variables of Services in the checkpoint; nil if they are not known.
	services map[string]string
	// actual and status are what was seen and computed last; online says that the
	// API's status was known then.
	actual *cri.Pod
	// ips are the newest sandbox's own addresses.
	ips []string
	// handler is the newest sandbox's runtime handler; empty is the default.
	handler string
	status  *corev1.PodStatus
	online  bool

	// From here on: the worker's goroutine only.
	// fresh says that the runtime cannot have anything of the pod yet.
	fresh     bool
	cards     gpuallocation.Assignment
	crashes   map[string]backoff.Crash
	waiting   map[string]podstatus.Waiting
	messages  map[string]string
	retries   map[string]retry // by container name, "" for the whole pod
	pulled    map[string]pulled
	told      map[string]told // events, so that a retry is no new one
	killed    map[string]bool // containers whose end has been announced
	stopSince time.Time
	failures  int
	dead      bool       // nothing of it lives, which its checkpoint says too
	settled   bool       // of a dead pod: its volumes are gone
	taking    chan error // what comes of taking them away, while that is under way
	saved     saved
	resizing  podstatus.Resizing
	resized   map[string]bool    // containers that are restarted for new resources
	limits    *crispec.PodLimits // of the pod's cgroup, once set
	// stopLooking ends what looks after the volumes; nil where nothing does.
	stopLooking context.CancelFunc
	// generation of the pod for which retries wait.
	generation int64
	daemonSet  bool
}

// retry is when a step that failed may be tried again.
type retry struct {
	failures int
	at       time.Time
}

// told is an event that was published.
type told struct {
	message string
	at      time.Time
}

// saved is what of the pod stands in its checkpoint.
type saved struct {
	generation int64
	deleting   bool
	started    bool
	waits      bool // for other resources
	services   bool // their variables are newer than this life of the agent
}

func newWorker(m *Manager, uid types.UID) *worker {
	w := &worker{
		m: m, uid: uid, wake: make(chan struct{}, 1), news: make(chan struct{}, 1), over: make(chan struct{}),
		crashes: map[string]backoff.Crash{}, waiting: map[string]podstatus.Waiting{}, messages: map[string]string{},
		retries: map[string]retry{}, pulled: map[string]pulled{}, told: map[string]told{}, killed: map[string]bool{},
		resized: map[string]bool{},
	}
	w.probes = w.newProbes()
	w.writer = statuswriter.New(m.o.Client, m.o.Clock, func(pod *corev1.Pod) { w.take(pod) })
	return w
}

// observe takes note of a newer object of the pod and makes the worker look at it.
func (w *worker) observe(pod *corev1.Pod) {
	first := w.writer.Observe(pod)
	if first {
		w.nudge()
	}
	if w.take(pod) || first {
		w.look()
	}
}

// take stores the object if it is newer than the one known, and reports whether.
func (w *worker) take(pod *corev1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod != nil && w.pod.ResourceVersion != "" && statuswriter.Version(pod) <= statuswriter.Version(w.pod) {
		return false
	}
	w.accept(pod)
	return true
}

// accept stores the object. Callers hold mu.
func (w *worker) accept(pod *corev1.Pod) {
	before := w.pod
	w.pod, w.absent = pod, false
	if inVolumes(before, pod) {
		w.nudge()
	}
	if before != nil && (before.DeletionTimestamp == nil && pod.DeletionTimestamp != nil || shorter(before, pod)) {
		w.poke(true)
	}
}

// shorter reports whether a deletion's grace was cut.
func shorter(before, after *corev1.Pod) bool {
	return before.DeletionGracePeriodSeconds != nil && after.DeletionGracePeriodSeconds != nil &&
		*after.DeletionGracePeriodSeconds < *before.DeletionGracePeriodSeconds
}

// vanish takes note that the API has no such pod: proof must have been given.
func (w *worker) vanish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.absent {
		w.absent = true
		w.poke(true)
	}
}

// vanished reports whether the API has no such pod (any more).
func (w *worker) vanished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.absent
}

// poke makes the worker look again. Callers hold mu.
func (w *worker) poke(interrupt bool) {
	if interrupt {
		w.interrupts++
		if w.interrupt != nil {
			w.interrupt()
		}
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// look makes the worker look again.
func (w *worker) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.poke(false)
}

// run takes steps until the pod is gone from everywhere or ctx is done.
func (w *worker) run(ctx context.Context) {
	logger := klog.FromContext(ctx).WithValues("podUID", w.uid)
	if pod := w.object(); pod != nil {
		logger = logger.WithValues("pod", klog.KObj(pod))
	}
	ctx = klog.NewContext(ctx, logger)
	// Who is told that the manager has ended must not meet a write of it after that.
	writing, stopWriting := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { w.writer.Run(writing) })
	defer writer.Wait()
	defer stopWriting()
	defer w.probes.Close()

	for {
		again, gone := w.step(ctx)
		if gone {
			w.m.forget(w)
			return
		}
		var timer <-chan time.Time
		if !again.IsZero() {
			timer = w.m.o.Clock.After(max(0, again.Sub(w.m.o.Clock.Now())))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer:
		}
	}
}

// step runs sync until there is nothing to do at once, and returns when to look
// again, and whether the pod is gone from everywhere.
func (w *worker) step(ctx context.Context) (again time.Time, gone bool) {
	for ctx.Err() == nil {
		result, err := w.sync(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			w.failures++
			klog.FromContext(ctx).V(1).Info("the pod's next step is tried again", "failures", w.failures, "cause", err)
			return earliest(result.again, w.m.o.Clock.Now().Add(backoff.Retry(w.failures))), false
		}
		w.failures = 0
		if result.gone {
			return time.Time{}, true
		}
		if !result.more {
			return result.again, false
		}
	}
	return time.Time{}, false
}

// result of a sync.
type result struct {
	// more: something was changed, look again at once.
	more bool
	// gone: nothing is left of the pod.
	gone bool
	// again is when to look again, zero for never.
	again time.Time
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (w *worker) object() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// interruptible returns a context that ends when the pod's deletion begins, its
// grace is cut, or it vanishes, also if that happened since seen was counted; done
// must be called.
func (w *worker) interruptible(ctx context.Context, seen int) (inner context.Context, done func()) {
	inner, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.interrupts != seen {
		cancel()
	}
	w.interrupt = cancel
	return inner, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.interrupt = nil
		cancel()
	}
}
