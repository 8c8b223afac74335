package binding

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
