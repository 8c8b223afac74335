package pods

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// Versions only grow, and so what is older than the answer to our own write is old
// news that the watch brings late. But for one case: the API's store was restored
// from a backup. What it says then is the truth, as it is to a kubelet, which takes
// whatever its watch shows it; a worker that waited for newer versions would not see
// its pod deleted for as many writes as were lost.

// notRestored fails if the API's store is older than what a watch wants to go on from: it
// was restored from a backup. Such a watch tells nothing until the store has come to that
// version again, for as many writes as were lost; whoever watches has to list anew. To
// restore a store its API server is stopped, so that it is enough to ask where a watch is
// gone on with.
func notRestored(ctx context.Context, list func(context.Context, metav1.ListOptions) (*corev1.PodList, error), o metav1.ListOptions) error {
	if o.ResourceVersion == "" || o.ResourceVersion == "0" || ptr.Deref(o.SendInitialEvents, false) {
		return nil // it begins with what there is
	}
	now, err := list(ctx, metav1.ListOptions{FieldSelector: o.FieldSelector, Limit: 1})
	if err != nil {
		return err //nolint:wrapcheck // the reflector looks at it
	}
	older, err := resourceversion.CompareResourceVersion(now.ResourceVersion, o.ResourceVersion)
	if err == nil && older < 0 {
		return apierrors.NewResourceExpired(fmt.Sprintf("the API's store is at version %s and was at %s: it was restored from a backup", now.ResourceVersion, o.ResourceVersion))
	}
	return nil
}

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
	w.writer.believe(pod)
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
	if version(shown) > known {
		w.observe(shown)
	}
	w.mu.Lock()
	behind := version(shown) < known
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
	case version(pod) < known:
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
	return version(w.pod)
}
