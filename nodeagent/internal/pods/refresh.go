package pods

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// lookAfter keeps the volumes of a pod up to date once they are there, in a goroutine
// of its own: a slow API does not hold up the worker. dismantle ends it.
func (w *worker) lookAfter(ctx context.Context, t *task) {
	if w.stopLooking != nil {
		return
	}
	inner, stop := context.WithCancel(ctx)
	w.stopLooking = stop
	if volumes.Changing(t.pod) {
		w.m.live.Go(func() { w.refreshVolumes(inner) })
	}
	if volumes.Mounting(t.pod) {
		pod := t.pod
		w.m.live.Go(func() { w.m.o.Volumes.Keep(inner, pod, mounts{w, pod}) })
	}
}

// mounts tells as events what becomes of a pod's mounts.
type mounts struct {
	w   *worker
	pod *corev1.Pod
}

func (m mounts) Mended(message string) {
	m.w.event(podRef(m.pod), corev1.EventTypeWarning, eventVolumeCondition, message)
}

func (m mounts) NotMended(err error) {
	m.w.event(podRef(m.pod), corev1.EventTypeWarning, eventFailedMount, err.Error())
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
		if pod := w.object(); w.writer.Known() {
			next, err := w.m.o.Volumes.Refresh(ctx, pod)
			if ctx.Err() != nil {
				return
			}
			now := w.m.o.Clock.Now()
			if err == nil {
				failures, told = 0, ""
			} else {
				failures++
				next = earliest(next, now.Add(min(backoff.RetryFirst<<min(failures, 10), relistEvery)))
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
