package pods

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/listwatch"
	"github.com/ainode/ainode/nodeagent/internal/statuswriter"
)

// watchAPI follows the pods of this node (by field selector, which is all that a
// node may list) until ctx is done.
func (m *Manager) watchAPI(ctx context.Context) error {
	onNode := fields.OneTermEqualSelector("spec.nodeName", m.o.NodeName)
	// Not the informer factory: it would link the types of the whole API into the
	// agent, a fifth of its memory.
	informer := cache.NewSharedInformer(listwatch.Of(m.o.Client.CoreV1().Pods(metav1.NamespaceAll), onNode, m.o.Client), &corev1.Pod{}, 0)
	if err := informer.SetTransform(withoutManagedFields); err != nil {
		return fmt.Errorf("watch the node's pods: %w", err)
	}
	first := make(chan struct{})
	if _, err := informer.AddEventHandler(m.handler(ctx, first)); err != nil {
		return fmt.Errorf("watch the node's pods: %w", err)
	}
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	defer running.Wait()
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		m.reconcile(ctx, informer.GetStore().List())
		close(first)
		running.Go(func() { m.compare(ctx, informer.GetStore()) })
	}
	<-ctx.Done()
	return nil
}

// handler passes on what changes after the first list has been dealt with; that
// one is dealt with in order.
func (m *Manager) handler(ctx context.Context, first <-chan struct{}) cache.ResourceEventHandler {
	listed := func() bool {
		select {
		case <-first:
			return true
		default:
			return false
		}
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if listed() || !initial {
				<-orDone(ctx, first)
				m.observe(o.(*corev1.Pod))
			}
		},
		UpdateFunc: func(old, new any) {
			<-orDone(ctx, first)
			before, after := old.(*corev1.Pod), new.(*corev1.Pod)
			switch {
			case before.UID != after.UID:
				m.missing(ctx, before.UID)
				m.observe(after)
			case statuswriter.Version(after) < statuswriter.Version(before):
				m.believe(after)
			default:
				m.observe(after)
			}
		},
		DeleteFunc: func(o any) {
			<-orDone(ctx, first)
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				m.missing(ctx, pod.UID)
			}
		},
	}
}

// orDone is closed when c or ctx is done.
func orDone(ctx context.Context, c <-chan struct{}) <-chan struct{} {
	select {
	case <-c:
		return c
	case <-ctx.Done():
		return ctx.Done()
	default:
	}
	both := make(chan struct{})
	go func() {
		defer close(both)
		select {
		case <-c:
		case <-ctx.Done():
		}
	}()
	return both
}

// reconcile deals with the first list: pods that were admitted before, then new
// ones in the order in which they were made; then pods that the API does not have.
func (m *Manager) reconcile(ctx context.Context, listed []any) {
	pods := make([]*corev1.Pod, 0, len(listed))
	present := map[types.UID]bool{}
	for _, o := range listed {
		pod := o.(*corev1.Pod)
		pods = append(pods, pod)
		present[pod.UID] = true
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		if fresh := cmp.Compare(isNew(a), isNew(b)); fresh != 0 {
			return fresh
		}
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for _, pod := range pods {
		m.observe(pod)
	}
	m.mu.Lock()
	left, err := m.leftovers()
	if err != nil {
		klog.FromContext(ctx).Error(err, "what is left of earlier pods may stay mounted")
	}
	for _, uid := range left {
		klog.FromContext(ctx).Info("volumes of a pod that is gone are taken away", "podUID", uid)
		w := newWorker(m, uid)
		w.actual = &cri.Pod{UID: uid}
		m.launch(w)
	}
	var unknown []types.UID
	for uid := range m.workers {
		if !present[uid] {
			unknown = append(unknown, uid)
		}
	}
	m.mu.Unlock()
	for _, uid := range unknown {
		m.missing(ctx, uid)
	}
}

func isNew(pod *corev1.Pod) int {
	if pod.Status.StartTime == nil {
		return 1
	}
	return 0
}

// missing deals with a pod that the API seems not to have: only when the API,
// asked anew, says so too, its worker may stop it.
func (m *Manager) missing(ctx context.Context, uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.workers[uid]
	if !ok {
		delete(m.over, uid)
		return
	}
	w.mu.Lock()
	mine := w.deleted
	w.goneSeen = mine
	w.mu.Unlock()
	if mine {
		return // it goes on by itself
	}
	m.live.Go(func() {
		namespace, name := w.identity()
		for failures := 1; ctx.Err() == nil; failures++ {
			pod, err := m.find(ctx, namespace, name, uid)
			if err == nil && pod == nil {
				w.vanish()
				return
			}
			if err == nil {
				w.observe(pod)
				return
			}
			klog.FromContext(ctx).V(1).Info("whether a pod is gone is not known yet", "pod", klog.KRef(namespace, name), "cause", err)
			select {
			case <-ctx.Done():
			case <-m.o.Clock.After(max(time.Second, backoff.Retry(failures))):
			}
		}
	})
}

// find asks the API for one pod of this node; nil if it has none of that UID. It
// lists, since a node may get only pods that exist.
func (m *Manager) find(ctx context.Context, namespace, name string, uid types.UID) (*corev1.Pod, error) {
	selector := fields.Set{"spec.nodeName": m.o.NodeName}
	if name != "" { // else nothing but its UID is known
		selector["metadata.name"] = name
	}
	list, err := m.o.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: selector.AsSelector().String()})
	if err != nil {
		return nil, fmt.Errorf("ask for pod %s/%s: %w", namespace, name, err)
	}
	for i := range list.Items {
		if list.Items[i].UID == uid {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// identity is the pod's name.
func (w *worker) identity() (namespace, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod != nil {
		return w.pod.Namespace, w.pod.Name
	}
	if w.actual != nil {
		return w.actual.Namespace, w.actual.Name
	}
	return "", ""
}

func withoutManagedFields(o any) (any, error) {
	if pod, ok := o.(*corev1.Pod); ok {
		pod.ManagedFields = nil
	}
	return o, nil
}
