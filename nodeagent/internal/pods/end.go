package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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

// Evict is End for who must know what came of it. over is nil if the pod ends as soon
// already, so that nothing more can be had of it; ours says that this verdict is what it
// ends by.
func (m *Manager) Evict(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours bool) {
	over, ours, sooner := m.end(uid, verdict)
	if !sooner {
		return nil, false
	}
	return over, ours
}

// end is End. It also says whether the pod ends by this verdict, and whether it ends sooner
// for it, as one does that has ended.
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
	ours = w.ordered == nil && w.verdict == nil && (w.pod == nil || !podstatus.Terminal(w.pod.Status.Phase))
	if ours {
		w.ordered = &verdict
	}
	sooner = ours
	if verdict.Grace != nil {
		if by := w.m.o.Clock.Now().Add(*verdict.Grace); w.endBy.IsZero() || by.Before(w.endBy) {
			w.endBy, sooner = by, true
		}
	}
	if sooner {
		w.poke(true)
	}
	return ours, sooner
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
		if err := w.writer.flush(ctx); err != nil {
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
