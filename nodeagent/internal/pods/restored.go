package pods

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/statuswriter"
)

// Versions only grow, and so what is older than the answer to our own write is old
// news that the watch brings late. But for one case: the API's store was restored
// from a backup. What it says then is the truth, as it is to a kubelet, which takes
// whatever its watch shows it; a worker that waited for newer versions would not see
// its pod deleted for as many writes as were lost.

// believe takes an object that the watch itself showed to be older than before.
func (m *Manager) believe(pod *corev1.Pod) {
	m.mu.Lock()
	w, ok := m.workers[pod.UID]
	m.mu.Unlock()
	if !ok {
		m.observe(pod)
		return
	}
	klog.FromContext(m.running).Info("the API shows an older version of the pod than before: its store was restored, which is taken for the truth",
		"pod", klog.KObj(pod), "version", pod.ResourceVersion)
	w.believe(pod)
}

func (w *worker) believe(pod *corev1.Pod) {
	w.writer.Believe(pod)
	w.mu.Lock()
	w.accept(pod)
	w.mu.Unlock()
	w.look()
}

// compare looks now and then for pods of which the watch shows something else than is
// known here: where a write of ours was lost with the store, the watch shows what it
// showed before, and tells nothing.
func (m *Manager) compare(ctx context.Context, store cache.Store) {
	ticker := m.o.Clock.NewTicker(relistEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		for _, o := range store.List() {
			m.compareOne(ctx, o.(*corev1.Pod))
		}
	}
}

func (m *Manager) compareOne(ctx context.Context, shown *corev1.Pod) {
	m.mu.Lock()
	w, ok := m.workers[shown.UID]
	m.mu.Unlock()
	if !ok {
		return
	}
	known := w.version()
	if statuswriter.Version(shown) > known {
		w.observe(shown)
	}
	w.mu.Lock()
	behind := statuswriter.Version(shown) < known
	still := behind && w.ahead == known
	w.ahead = 0
	if behind {
		w.ahead = known
	}
	w.mu.Unlock()
	if !still {
		return
	}
	// A watch may be slow, so that the API itself is asked.
	switch pod, err := m.find(ctx, shown.Namespace, shown.Name, shown.UID); {
	case err != nil:
		klog.FromContext(ctx).V(1).Info("whether a pod is as known is not known yet", "pod", klog.KObj(shown), "cause", err)
	case pod == nil:
		m.missing(ctx, shown.UID)
	case statuswriter.Version(pod) < known:
		m.believe(pod)
	}
}

// version is the newest version of the pod that is known, from the watch or from the
// answer to a write.
func (w *worker) version() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod == nil {
		return 0
	}
	return statuswriter.Version(w.pod)
}
