package cli

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/endtime"
)

// soon is how near it is that pods go where that is told with their number: who meant
// another end has no time to notice otherwise.
const soon = time.Minute

// completeTerm reads --until and --drain-grace. An end that was not given asks for
// nothing: a bound node keeps its own.
func (o *bindOptions) completeTerm(until, grace bool) error {
	if !until {
		if grace {
			return usageError("bind", "--drain-grace goes with --until")
		}
		return nil
	}
	o.asked = o.env.Clock.Now()
	at, err := endtime.Parse(o.until, o.asked)
	if err != nil {
		return usageError("bind", "--until: %v", err)
	}
	o.term, o.keepGrace = &binding.Term{Until: at}, !grace
	if at.IsZero() {
		if grace {
			return usageError("bind", "--drain-grace goes with an end, which --until %s takes away", endtime.None)
		}
		return nil
	}
	if o.term.DrainGrace, err = endtime.ParseGrace(o.drainGrace); err != nil {
		return usageError("bind", "--drain-grace: %v", err)
	}
	known := o.term.DrainGrace
	if o.keepGrace {
		known = 0 // the record may have another: checkTerm judges it
	}
	if err := endtime.Check(at, known, o.asked); err != nil {
		return usageError("bind", "--until: %v", err)
	}
	return nil
}

// checkTerm judges an end by the grace that nobody has typed. An end that is no sooner
// than the one before takes no time from pods.
func (o *bindOptions) checkTerm(p *binding.Plan) error {
	if o.term == nil || !o.keepGrace || o.term.Until.IsZero() {
		return nil
	}
	whose := "without it a node gets that much"
	if p.Had != nil {
		if !o.term.Until.Before(p.Had.Until) {
			return nil
		}
		whose = "without it the node keeps the one that it has"
	}
	if err := endtime.Check(p.Term.Until, p.Term.DrainGrace, o.asked); err != nil {
		return usageError("bind", "AI node %q: --until: %v (%s)", p.Node, err, whose)
	}
	return nil
}

// tellTerm says in the person's own zone what was understood, and what that does to pods
// soon.
func (o *bindOptions) tellTerm(ctx context.Context, walk *binding.Walk, p *binding.Plan) {
	if p.Term == nil || p.Term.Until.IsZero() {
		return
	}
	until, grace, now := p.Term.Until, p.Term.DrainGrace, o.env.Clock.Now()
	walk.Progress.Line(p.Node, "ends at %s (%s); %s", endtime.Words(until, now), endtime.In(until, now), endtime.Drains(until, grace, now))
	left := until.Add(-grace).Sub(now)
	if left > soon {
		return
	}
	pods := "the pods there are"
	if n, err := walk.Living(ctx, p.Node); err == nil {
		pods = many(n, "pod there is", "pods there are")
	}
	switch {
	case grace <= 0:
		walk.Progress.Warn(p.Node, "%s %s ended, without a grace period", fromNow(left), pods)
	case until.Sub(now) > soon:
		walk.Progress.Warn(p.Node, "%s no new pods come, and %s evicted", fromNow(left), pods)
	default:
		walk.Progress.Warn(p.Node, "%s no new pods come, and %s evicted; what is left %s is ended", fromNow(left), pods, fromNow(until.Sub(now)))
	}
}

func fromNow(left time.Duration) string {
	if left < time.Second {
		return "at once"
	}
	return "in " + duration.HumanDuration(left)
}

// retime gives a bound node another end.
func (o *bindOptions) retime(ctx context.Context, walk *binding.Walk, p *binding.Plan) error {
	o.tellTerm(ctx, walk, p)
	ends := "without an end"
	if !p.Term.Until.IsZero() {
		ends = "until " + endtime.Words(p.Term.Until, o.env.Clock.Now())
	}
	if !o.dryRun.client() {
		if err := walk.Retime(ctx, p); err != nil {
			return err
		}
	}
	if o.dryRun != dryRunNone {
		o.dryRun.announce(o.env, "node/%s bound %s", p.Node, ends)
		return nil
	}
	fmt.Fprintf(o.env.Out, "node/%s bound %s\n", p.Node, ends)
	return nil
}
