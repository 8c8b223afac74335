package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// alone are the checks that bind makes by itself, before this, and in more detail:
// they can't be ignored.
var alone = []string{"hub", "target", "rights", "binding"}

// PreflightIDs are the checks that speak before a binding and may be ignored.
func PreflightIDs() []string {
	var ids []string
	for _, c := range checks {
		if c.when&before != 0 && !slices.Contains(alone, c.id) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// Preflight asks what speaks against a binding. An error is what it must not be done
// with, the last of them with the one command that does it all the same; warn is told what
// else is bad, and note what is good to know.
func (c Case) Preflight(ctx context.Context, warn, note func(subject, text string)) error {
	c.Before = true
	c.Ignore = slices.Concat(c.Ignore, alone)
	findings, err := c.Examine(ctx)
	if err != nil {
		return err
	}
	var errs []error
	var against, unread []string
	for _, f := range findings {
		switch {
		case f.Unread:
			unread = append(unread, f.ID)
		case f.Severity == Error:
			text := f.What
			if f.Node != "" {
				text = "AI node \"" + f.Node + "\": " + text
			}
			errs, against = append(errs, errors.New(sentences(text, f.Why, f.Fix))), append(against, f.ID)
		case f.Severity == Warning:
			warn(f.Node, sentences(f.What, f.Why, f.Fix))
		case f.Told:
			note(f.Node, f.What)
		}
	}
	if slices.Sort(unread); len(unread) > 0 {
		warn("", "not looked at before binding: "+strings.Join(slices.Compact(unread), ", ")+". See why:  kubectl ainode doctor --pre")
	}
	if last := len(errs) - 1; last >= 0 {
		them := "it"
		if len(c.Names) > 1 {
			them = "them"
		}
		errs[last] = &remedy.Error{Err: errs[last], Say: "Or bind " + them + " all the same", Command: c.Again(against)}
	}
	return errors.Join(errs...)
}

// sentences are a finding in one line.
func sentences(what, why string, fix []string) string {
	if why != "" {
		what += ": " + why
	}
	for _, way := range fix {
		what += ". " + diagnosis.Upper(way)
	}
	return what
}
