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
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Term is when a binding ends.
type Term struct {
	// Until is zero for no end.
	Until time.Time
	// DrainGrace is how long before Until pods begin to be sent away.
	DrainGrace time.Duration
	// KeepGrace has a node that has an end already keep its grace: DrainGrace is for the
	// others.
	KeepGrace bool
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

// after is the term of a node that had another, or none.
func (t *Term) after(had *Term) *Term {
	own := *t
	if own.KeepGrace && had != nil {
		own.DrainGrace = had.DrainGrace
	}
	return &own
}

// lost is the term that the machine goes by where the hub's record has lost it: the hub was
// restored from a backup. nil where nothing is lost.
func lost(r *v1alpha1.AINode) *Term {
	if !nodes.EndLost(r) {
		return nil
	}
	return termOf(r.Status.Binding.Until, r.Status.Binding.DrainGrace)
}

// stands reports whether a record has this term already. No term asks for nothing.
func (t *Term) stands(spec v1alpha1.AINodeSpec) bool {
	if t == nil {
		return true
	}
	if t.Until.IsZero() || spec.Until == nil {
		return t.Until.IsZero() && spec.Until == nil
	}
	return spec.Until.Time.Equal(t.Until) && spec.DrainGrace != nil && spec.DrainGrace.Duration == t.DrainGrace
}

// put writes the term into a record's spec.
func (t *Term) put(spec *v1alpha1.AINodeSpec) {
	switch {
	case t == nil:
	case t.Until.IsZero():
		spec.Until, spec.DrainGrace = nil, nil
	default:
		until := metav1.NewTime(t.Until.UTC())
		spec.Until, spec.DrainGrace = &until, &metav1.Duration{Duration: t.DrainGrace}
	}
}

// kept fails if the hub has not kept a term: an older chart's records have no ends.
func (t *Term) kept(record *v1alpha1.AINode) error {
	if t.stands(record.Spec) {
		return nil
	}
	return remedy.New("Bring the hub's chart up to date, then type it again", "helm upgrade ainode charts/ainode --namespace ainode-system",
		"the hub keeps no end of the binding of AI node %q: its records are of an older version", record.Name)
}

// Retime gives a bound node another end, or none.
func (w *Walk) Retime(ctx context.Context, p *Plan) error {
	record, err := w.edit(ctx, p.Node, func(r *v1alpha1.AINode) (bool, error) {
		if r.Spec.ClusterConfigName != p.Config {
			return false, remedy.New("Bind it again", "kubectl ainode bind "+p.Node+" --to "+p.Config, "AI node %q was unbound meanwhile", p.Node)
		}
		change := !p.Term.stands(r.Spec)
		p.Term.put(&r.Spec)
		return change, nil
	})
	if err != nil || w.DryRun {
		return err
	}
	return p.Term.kept(record)
}

// Living counts the pods of a node that have not ended, which an end would send away.
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
