package binding

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
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

func (t *Term) equal(o *Term) bool {
	return t.Until.Equal(o.Until) && (t.DrainGrace == o.DrainGrace || t.Until.IsZero())
}

// beside is an end that is another one than this, and as near to it as can be.
func (t *Term) beside(now time.Time) *Term {
	if t.Until.IsZero() {
		return &Term{Until: now.AddDate(100, 0, 0).Truncate(time.Second)}
	}
	return &Term{Until: t.Until.Add(time.Second), DrainGrace: t.DrainGrace}
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
	return outdatedChart("the hub keeps no end of the binding of AI node %q: its records are of an older version", record.Name)
}

// outdatedChart is an error whose way out is to upgrade the hub's chart.
func outdatedChart(format string, args ...any) error {
	return remedy.New("Bring the hub's chart up to date, then type it again", "helm upgrade ainode charts/ainode --namespace ainode-system", format, args...)
}

// Retime gives a bound node another end, or none.
func (w *Walk) Retime(ctx context.Context, p *Plan) error {
	if p.first != nil && !w.DryRun {
		if err := w.agree(ctx, p); err != nil {
			return err
		}
	}
	record, err := w.putTerm(ctx, p, p.Term)
	if err != nil || w.DryRun {
		return err
	}
	return p.Term.kept(record)
}

func (w *Walk) putTerm(ctx context.Context, p *Plan, t *Term) (*v1alpha1.AINode, error) {
	return w.edit(ctx, p.Node, func(r *v1alpha1.AINode) (bool, error) {
		if r.Spec.ClusterConfigName != p.Config {
			return false, remedy.New("Bind it again", "kubectl ainode bind "+p.Node+" --to "+p.Config, "AI node %q was unbound meanwhile", p.Node)
		}
		change := !t.stands(r.Spec)
		t.put(&r.Spec)
		return change, nil
	})
}

// agree has record and machine agree on an end, after the hub was restored. A machine does
// not take over the one that stands in such a record again, and can't see whether a person
// means that very end. What comes after they have agreed is a later word.
func (w *Walk) agree(ctx context.Context, p *Plan) error {
	w.Progress.Line(p.Node, "the hub was restored: first another end, for its machine may take this one for an old one")
	record, err := w.putTerm(ctx, p, p.first)
	if err != nil {
		return err
	}
	if err := p.first.kept(record); err != nil {
		return err
	}
	ctx, cancel := w.patience(ctx)
	defer cancel()
	_, err = kube.Until(ctx, w.Hub.WatchedAINode(p.Node), func(r *v1alpha1.AINode) (bool, error) {
		if r == nil || r.Spec.ClusterConfigName != p.Config {
			return false, fmt.Errorf("AI node %q was unbound or removed meanwhile", p.Node)
		}
		return !nodes.EndLost(r), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		until := metav1.NewTime(p.first.Until)
		return remedy.New("Look at it on the machine, then type it again", "journalctl -u ainode-agent -n 50",
			"the machine of AI node %q has not answered to its record within %s: that has the end %s until then", p.Node, w.Timeout, until.UTC().Format(time.RFC3339))
	}
	return err
}
