package pods

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
)

// adopt takes over what an earlier run of the agent left: pods in the runtime and
// remembered pods. It waits for the runtime to answer. Pods of an earlier binding
// are ended first: that this one exists is the proof that theirs is over.
func (m *Manager) adopt(ctx context.Context) error {
	points, err := m.checkpoints.Load()
	if err != nil {
		klog.FromContext(ctx).Error(err, "some remembered pods wait for the API")
	}
	actual, err := m.awaitRuntime(ctx)
	if err != nil {
		return err
	}
	var stale []*cri.Pod
	for uid, pod := range actual {
		epoch, ours := epochOf(pod)
		switch {
		case !ours:
			delete(actual, uid)
		case epoch != m.o.Epoch:
			stale = append(stale, pod)
			delete(actual, uid)
			delete(points, uid)
		}
	}
	if len(stale) > 0 {
		klog.FromContext(ctx).Info("ending pods of an earlier binding", "pods", len(stale))
		if err := m.endPods(ctx, stale, graceDefault); err != nil {
			return err
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, point := range points {
		if point.Epoch != m.o.Epoch {
			if err := m.checkpoints.Remove(uid); err != nil {
				return err
			}
			continue
		}
		w := newWorker(m, uid)
		w.pod = point.Pod
		w.pod.ResourceVersion = "" // whatever the API shows is newer, its store may have been restored meanwhile
		w.saved = saved{generation: point.Pod.Generation, deleting: point.Pod.DeletionTimestamp != nil, started: true}
		w.cards, w.granted, w.services, w.stopSince = point.Cards, grantedBy(point.Pod), point.Services, point.StopSince
		if w.dead = point.Dead; w.dead { // its cards may be another's, and its end is told by that verdict
			w.released, w.verdict = true, point.Verdict
		} else {
			m.claim(w, actual[uid])
		}
		delete(actual, uid)
		m.launch(w)
	}
	for uid, pod := range actual {
		w := newWorker(m, uid)
		w.actual = pod
		m.claim(w, pod)
		m.launch(w)
	}
	return nil
}

// claim keeps the cards of an adopted pod: what its containers carry, and, where
// none was made yet, what its checkpoint says. A pod that has ended has no ready
// sandbox, and no claim.
func (m *Manager) claim(w *worker, actual *cri.Pod) {
	if actual != nil {
		for i := len(actual.Containers) - 1; i >= 0; i-- { // the newest instance wins
			c := actual.Containers[i]
			if cards := cardsOf(c); len(cards) > 0 {
				if w.cards == nil {
					w.cards = gpuallocation.Assignment{}
				}
				w.cards[c.GetMetadata().GetName()] = cards
			}
		}
	}
	if w.pod != nil || actual.MayRun() {
		m.gpus.Claim(w.uid, w.cards)
	}
}

// awaitRuntime lists the runtime's pods, for as long as it takes.
func (m *Manager) awaitRuntime(ctx context.Context) (map[types.UID]*cri.Pod, error) {
	for failures := 1; ; failures++ {
		actual, err := m.lister.Pods(ctx)
		if err == nil {
			return actual, nil
		}
		delay := min(backoff.Retry(failures), 2*time.Second)
		klog.FromContext(ctx).Info("waiting for the container runtime", "again", delay, "cause", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.o.Clock.After(delay):
		}
	}
}
