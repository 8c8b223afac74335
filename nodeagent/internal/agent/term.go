package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/term"
)

// newTerm makes what ends pods in time where the binding has an end.
func (t *tenant) newTerm(target binding.Target, client kubernetes.Interface, node func() *corev1.Node) *term.Manager {
	return term.New(term.Options{
		Known: target.End, HubTime: target.HubTime, Clock: t.clock,
		Evict: func(ctx context.Context, pod *corev1.Pod) error { return evict(ctx, client, pod) },
		Node:  func() *corev1.ObjectReference { return nodeRef(node()) },
	})
}

// evict asks the API to evict a pod; its disruption budget may say no. A node may ask
// that of its own pods.
func evict(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) error {
	return client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(pod.UID)}},
	})
}

// either gives out a value when one of two channels has one, until ctx ends.
func either(ctx context.Context, out chan<- struct{}, a, b <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a:
		case <-b:
		}
		select {
		case out <- struct{}{}:
		default:
		}
	}
}
