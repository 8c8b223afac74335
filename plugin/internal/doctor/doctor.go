// Package doctor looks at hub, target, webhook and AI nodes from the person's side:
// named checks, each of which says what it saw or what is wrong, why that matters,
// and what to type next. What speaks against a binding before it is begun is a part
// of them: bind asks the same checks as doctor --pre.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ainode/ainode/api/diagnosis"
)

// The severities of api/diagnosis.
const (
	OK      = diagnosis.OK
	Warning = diagnosis.Warning
	Error   = diagnosis.Error
)

// The areas, in the order in which they are looked at.
const (
	Hub     = "hub"
	Target  = "target"
	Webhook = "webhook"
	Node    = "node"
)

// moment says which examinations a check belongs to.
type moment int

const (
	// standing is how hub, target and bound nodes do.
	standing moment = 1 << iota
	// before is what speaks against a binding that is to come.
	before
)

// check is one thing that is looked at. Ids are API: people write them in scripts.
type check struct {
	id   string
	area string
	when moment
	// look returns what it saw where it found nothing; empty says that there was
	// nothing to be looked at.
	look func(context.Context, *sight) (saw string, flaws []flaw, err error)
}

// flaw is a finding of a check that need not say which it is. One that is OK speaks
// against nothing: bind tells it.
type flaw struct {
	severity  diagnosis.Severity
	what, why string
	fix       []string
}

// fix is what to do, with the command to type next.
func fix(say, format string, args ...any) string {
	return say + ":  " + fmt.Sprintf(format, args...)
}

// one is the answer of a check that found one thing.
func one(severity diagnosis.Severity, what, why string, fix ...string) (string, []flaw, error) {
	return "", []flaw{{severity, what, why, fix}}, nil
}

// checks are all of them, in the order in which they are shown. The first of hub
// and target is the gate: where it finds an error, the others can't look.
var checks = slices.Concat(hubChecks, targetChecks, landingChecks, webhookChecks, recordChecks, memberChecks)

// patience is how long one look may take: what hangs is a finding.
const patience = 15 * time.Second

// IDs are those of all checks.
func IDs() []string {
	var ids []string
	for _, c := range checks {
		ids = append(ids, c.id)
	}
	return ids
}

// Examine looks at everything that the case asks for. It returns what was seen, good
// and bad; an error only for a node that is not there, or ctx's end.
func (c *Case) Examine(ctx context.Context) ([]diagnosis.Finding, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	now := standing
	if c.Before {
		now = before
	}
	shut := map[string]bool{}
	var asked []question
	for _, ch := range checks {
		if ch.when&now == 0 || ch.area == Node || shut[ch.area] || slices.Contains(c.Ignore, ch.id) {
			continue
		}
		q := question{s, ch, nil}
		if ch.id == gates[ch.area] {
			q.answer = s.ask(ctx, ch)
			shut[ch.area] = slices.ContainsFunc(q.answer, func(f diagnosis.Finding) bool { return f.Severity == Error })
			shut[Webhook] = shut[Target]
		}
		asked = append(asked, q)
	}
	for _, node := range s.nodes {
		of := s.of(ctx, node, shut[Target])
		for _, ch := range checks {
			if ch.when&now != 0 && ch.area == Node && !slices.Contains(c.Ignore, ch.id) {
				asked = append(asked, question{of, ch, nil})
			}
		}
	}
	var all []diagnosis.Finding
	for _, q := range answered(ctx, asked) {
		all = append(all, q.answer...)
	}
	return all, ctx.Err()
}

// question is one check of one sight, and in time its answer.
type question struct {
	*sight
	check  check
	answer []diagnosis.Finding
}

// answered asks what has no answer yet, a few at a time.
func answered(ctx context.Context, asked []question) []question {
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range asked {
		if asked[i].answer != nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			asked[i].answer = asked[i].ask(ctx, asked[i].check)
			<-slots
		})
	}
	wg.Wait()
	return asked
}

// gates are the checks without which an area can't be looked at.
var gates = map[string]string{Hub: "hub", Target: "target"}

// ask asks one check.
func (s *sight) ask(ctx context.Context, ch check) []diagnosis.Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	saw, flaws, err := ch.look(ctx, s)
	finding := diagnosis.Finding{ID: ch.id, Area: ch.area, Node: s.name()}
	if err != nil {
		finding.Severity, finding.Unread = Warning, true
		finding.What, finding.Why = "can't be looked at: "+err.Error(), "what can't be read can't be called well"
		if apierrors.IsForbidden(err) {
			finding.Fix = []string{fmt.Sprintf("ClusterRole and Role %q of the chart grant what looking takes, save for creating the trial's pod in namespace default", ReaderRole)}
		}
		return []diagnosis.Finding{finding}
	}
	if len(flaws) == 0 && saw == "" {
		return nil
	}
	if len(flaws) == 0 {
		finding.Severity, finding.What = OK, saw
		return []diagnosis.Finding{finding}
	}
	var all []diagnosis.Finding
	for _, f := range flaws {
		finding.Severity, finding.What, finding.Why, finding.Fix = f.severity, f.what, f.why, f.fix
		finding.Told = f.severity == OK
		all = append(all, finding)
	}
	return all
}

// ReaderRole is the chart's ClusterRole, and Role of the system namespace, for what
// doctor reads.
const ReaderRole = "ainode-doctor"

// some names a few of many.
func some(names []string) string {
	const most = 4
	if more := len(names) - most; more > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}
