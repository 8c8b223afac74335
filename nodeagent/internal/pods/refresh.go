package pods

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// measureEvery is how often disk usage is compared with the limits of a pod that has
// some, and restShare how much longer than it took the next look waits at least.
const (
	measureEvery = 20 * time.Second
	restShare    = 10
)

// lookAfter keeps the volumes of a pod up to date and within their limits once they
// are there, in goroutines of their own: neither a slow API nor a slow disk holds up the
// worker. dismantle ends them.
func (w *worker) lookAfter(ctx context.Context, t *task) {
	if w.stopLooking != nil {
		return
	}
	inner, stop := context.WithCancel(ctx)
	w.stopLooking = stop
	if volumes.Changing(t.pod) {
		w.m.live.Go(func() { w.refreshVolumes(inner) })
	}
	if volumes.Limited(t.pod) {
		w.m.live.Go(func() { w.measureVolumes(inner) })
	}
}

// nudge makes the volumes be refreshed.
func (w *worker) nudge() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// inVolumes reports whether the downward API would tell of a difference.
func inVolumes(before, after *corev1.Pod) bool {
	return before == nil || before.Generation != after.Generation ||
		!maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations)
}

// refreshVolumes writes into mounted volumes what has changed: at once when it is
// heard of, and when a token grows old. What it cannot write it tells once.
func (w *worker) refreshVolumes(ctx context.Context) {
	w.m.o.Volumes.Follow(ctx, w.object(), w.nudge)
	failures, told := 0, ""
	for {
		var again <-chan time.Time
		// Labels that were remembered over a restart may be older than the file that tells
		// them.
		if pod := w.object(); w.writer.known() {
			next, err := w.m.o.Volumes.Refresh(ctx, pod)
			if ctx.Err() != nil {
				return
			}
			now := w.m.o.Clock.Now()
			if err == nil {
				failures, told = 0, ""
			} else {
				failures++
				next = earliest(next, now.Add(min(retryFirst<<min(failures, 10), relistEvery)))
				klog.FromContext(ctx).V(1).Info("a mounted volume keeps its old content", "failures", failures, "cause", err)
			}
			// A namespace that is deleted takes its objects before its pods.
			if err != nil && err.Error() != told && pod.DeletionTimestamp == nil {
				told = err.Error()
				w.event(podRef(pod), corev1.EventTypeWarning, eventFailedMount, told)
			}
			if !next.IsZero() {
				again = w.m.o.Clock.After(max(0, next.Sub(now)))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-w.news:
		case <-again:
		}
	}
}

// measureVolumes evicts the pod when an emptyDir on disk holds more than it may.
func (w *worker) measureVolumes(ctx context.Context) {
	rest := measureEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.m.o.Clock.After(rest):
		}
		began := w.m.o.Clock.Now()
		excess, err := w.m.o.Volumes.Excess(ctx, w.object())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			klog.FromContext(ctx).V(1).Info("a volume's usage is not known", "cause", err)
		case excess != "":
			w.evict(excess)
			return
		}
		rest = max(measureEvery, restShare*w.m.o.Clock.Since(began))
	}
}

// evict ends the pod: it holds more of the machine than it may.
func (w *worker) evict(message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.excess == "" {
		w.excess = message
		w.poke(true)
	}
}

// checkEvicted ends the pod if it is to be evicted.
func (w *worker) checkEvicted(pod *corev1.Pod) {
	w.mu.Lock()
	message := w.excess
	w.mu.Unlock()
	if message == "" || w.verdict != nil {
		return
	}
	w.verdict = evicted(message)
	w.event(podRef(pod), corev1.EventTypeWarning, w.verdict.Reason, message)
}
