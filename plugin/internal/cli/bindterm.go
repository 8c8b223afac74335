package cli

import (
	"context"
	"fmt"

	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/term"
)

// completeTerm reads --until and --drain-grace. An end that was not given asks for
// nothing: a bound node keeps its own.
func (o *bindOptions) completeTerm(until, grace bool) error {
	if !until {
		if grace {
			return usageError("bind", "--drain-grace goes with --until")
		}
		return nil
	}
	now := o.env.Clock.Now()
	at, err := term.Parse(o.until, now)
	if err != nil {
		return usageError("bind", "--until: %v", err)
	}
	o.term = &binding.Term{Until: at}
	if at.IsZero() {
		return nil
	}
	o.term.DrainGrace = o.drainGrace
	if err := term.Check(at, o.drainGrace, now); err != nil {
		return usageError("bind", "--until: %v", err)
	}
	return nil
}

// tellTerm says in the person's own zone what was understood.
func (o *bindOptions) tellTerm(walk *binding.Walk, p *binding.Plan) {
	if p.Term == nil || p.Term.Until.IsZero() {
		return
	}
	now := o.env.Clock.Now()
	walk.Progress.Line(p.Node, "ends at %s (%s); pods are evicted from %s on", term.Words(p.Term.Until, now), term.In(p.Term.Until, now),
		term.Words(p.Term.Until.Add(-p.Term.DrainGrace), now))
}

// retime gives a bound node another end.
func (o *bindOptions) retime(ctx context.Context, walk *binding.Walk, p *binding.Plan) error {
	o.tellTerm(walk, p)
	ends := "without an end"
	if !p.Term.Until.IsZero() {
		ends = "until " + term.Words(p.Term.Until, o.env.Clock.Now())
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
