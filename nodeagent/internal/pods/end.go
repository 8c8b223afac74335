package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// Active are the pods that may have processes, as they were seen last, those that end
// already too. They are copies.
func (m *Manager) Active() []*corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pods []*corev1.Pod
	for _, w := range m.workers {
		w.mu.Lock()
		if w.pod != nil && !w.released && !w.daemonSet {
			pods = append(pods, w.pod.DeepCopy())
		}
		w.mu.Unlock()
	}
	return pods
}

// End ends a pod for the node's sake; the verdict is its last status. One that ends already
// keeps its reason, and gets no more time than this verdict's grace from now on. It does not
// wait: what it returns is closed when nothing of the pod lives, what it held is free,
// and its volumes are gone, or a first try to take them away has failed. A pod that the
// node does not have, or that has ended, is none to wait for.
func (m *Manager) End(uid types.UID, verdict podstatus.Verdict) <-chan struct{} {
	over, _, _ := m.end(uid, verdict)
	return over
}

// Evict is End for who must know what came of it: ours says that this verdict is what the
// pod ends by, sooner that it ends sooner for it, or has ended. One that is not sooner ends
// as soon already.
func (m *Manager) Evict(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours, sooner bool) {
	return m.end(uid, verdict)
}

func (m *Manager) end(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours, sooner bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.workers[uid]
	if !ok {
		ended := make(chan struct{})
		close(ended)
		return ended, false, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.released {
		return w.over, false, true
	}
	ours, sooner = w.order(verdict)
	return w.over, ours, sooner
}

// order has the pod end by this verdict, unless it ends by another, and within its grace
// in any case. Callers hold mu.
func (w *worker) order(verdict podstatus.Verdict) (ours, sooner bool) {
	ours = w.ordered == nil && w.verdict == nil && !w.ended && (w.pod == nil || !podstatus.Terminal(w.pod.Status.Phase))
	if ours {
		w.ordered = &verdict
	}
	sooner = ours && w.ownEnd.IsZero()
	if verdict.Grace != nil {
		if by := w.m.o.Clock.Now().Add(*verdict.Grace); before(by, w.endBy) {
			w.endBy = by
			sooner = sooner || before(by, w.ownEnd)
		}
	}
	// Who ends as soon already is left to it: an interrupted end begins its hooks again.
	if ours || sooner {
		w.poke(sooner)
	}
	return ours, sooner
}

// before reports whether by is sooner than an end, which is zero where there is none.
func before(by, end time.Time) bool { return end.IsZero() || by.Before(end) }

// hasEnded notes before a pod is buried that it has ended of itself: a verdict that comes
// from then on is not what it ends by. It is false if one has come since the look began.
func (w *worker) hasEnded(t *task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.plan.Ended && w.verdict == nil && !w.dead && w.ordered != nil && !podstatus.Terminal(t.pod.Status.Phase) {
		return false
	}
	w.ended = t.plan.Ended
	return true
}

// decide ends the pod by this verdict, unless the node has ordered another meanwhile. It
// reports whether.
func (w *worker) decide(verdict *podstatus.Verdict) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ordered != nil {
		w.verdict = w.ordered
		return false
	}
	w.verdict = verdict
	return true
}

// Flush waits until the API knows the newest status of every pod, or ctx ends.
func (m *Manager) Flush(ctx context.Context) error {
	m.mu.Lock()
	workers := slices.Collect(maps.Values(m.workers))
	m.mu.Unlock()
	for _, w := range workers {
		if err := w.writer.Flush(ctx); err != nil {
			return fmt.Errorf("wait until the API knows the newest status of the pods: %w", err)
		}
	}
	return nil
}

// RemoveDead removes the containers of pods that have ended, and with them their
// writable layers. Their statuses stay in the API; their logs end with the pods.
func (m *Manager) RemoveDead(ctx context.Context) error {
	m.mu.Lock()
	var dead []*cri.Pod
	for _, w := range m.workers {
		w.mu.Lock()
		// Not before the API has the last of it.
		if w.released && w.pod != nil && podstatus.Terminal(w.pod.Status.Phase) && w.actual != nil {
			dead = append(dead, w.actual)
		}
		w.mu.Unlock()
	}
	m.mu.Unlock()
	var errs []error
	for _, pod := range dead {
		for _, s := range pod.Sandboxes {
			if err := m.o.Runtime.RemovePodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("remove what is left of pod %s/%s: %w", pod.Namespace, pod.Name, err))
			}
		}
		for _, c := range pod.Containers {
			m.lister.Forget(c.Id)
		}
		m.runtimeChanged(pod.UID)
	}
	return errors.Join(errs...)
}
