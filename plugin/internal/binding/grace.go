package binding

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

// begin notes what the plan finds: an end, whose grace it may keep, and an unbinding.
func (p *Plan) begin(r *v1alpha1.AINode) {
	p.Had = had(r)
	if p.Term != nil && p.KeepGrace && p.Had != nil {
		p.Term = &Term{Until: p.Term.Until, DrainGrace: p.Had.DrainGrace}
	}
	p.callsOff = r.Spec.ClusterConfigName == p.Config && r.Spec.Draining && !nodes.Outdated(r)
}

// had is the end that a node's binding has so far; nil for none.
func had(r *v1alpha1.AINode) *Term {
	t := lost(r)
	if t == nil && r.Spec.ClusterConfigName != "" {
		t = termOf(r.Spec.Until, r.Spec.DrainGrace)
	}
	if t == nil || t.Until.IsZero() {
		return nil
	}
	return t
}

func termOf(until *metav1.Time, grace *metav1.Duration) *Term {
	t := &Term{}
	if until != nil {
		t.Until = until.Time
	}
	if grace != nil {
		t.DrainGrace = grace.Duration
	}
	return t
}

// Living counts the pods of a node that have not ended, which the end of its binding sends
// away.
func (w *Walk) Living(ctx context.Context, node string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // the end may be as near
	defer cancel()
	pods, err := w.Target.Core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return 0, fmt.Errorf("list the pods of node %q: %w", node, err)
	}
	n := 0
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			n++
		}
	}
	return n, nil
}
