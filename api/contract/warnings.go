package contract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of warnings: the API server cuts each at 256 runes once all together
// have 4096, and kubectl's users read no more either.
const (
	warningAtMost  = 256
	warningsAtMost = 4096
)

// Warnings are the lines a user reads at kubectl apply: one a feature, worst
// first, the routine ones in one line on pods and not at all on workloads.
//
//	host-network: spec.hostNetwork was removed: an AI node's network is not the cluster's
func (v Verdict) Warnings() []string {
	var lines []string
	var routine []Finding
	byFeature := map[Feature][]Finding{}
	var order []Feature
	for _, f := range v.Findings {
		switch {
		case f.Action == Deny:
		case f.Routine:
			routine = append(routine, f)
		default:
			if byFeature[f.Feature] == nil {
				order = append(order, f.Feature)
			}
			byFeature[f.Feature] = append(byFeature[f.Feature], f)
		}
	}
	for _, findings := range byFeature {
		slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(rank(a.Action), rank(b.Action)) })
	}
	slices.SortStableFunc(order, func(a, b Feature) int {
		return cmp.Compare(severity(byFeature[a]), severity(byFeature[b]))
	})
	for _, feature := range order {
		lines = append(lines, v.warning(byFeature[feature]))
	}
	if len(routine) > 0 && v.moment != OnTemplate {
		lines = append(lines, v.routine(routine))
	}
	return fit(lines)
}

// rank orders the findings of one feature: the normalised before the stripped.
func rank(a Action) int {
	return slices.Index([]Action{Normalise, Strip, Warn, Inject}, a)
}

// severity orders features: those that lose something first.
func severity(findings []Finding) int {
	worst := len(severities)
	for _, f := range findings {
		worst = min(worst, slices.Index(severities, f.Action))
	}
	return worst
}

var severities = []Action{Strip, Normalise, Warn, Inject}

func (v Verdict) warning(findings []Finding) string {
	first := findings[0]
	line := fmt.Sprintf("%s: %s", first.Feature, first.Field)
	if more := len(findings) - 1; more > 0 {
		line += fmt.Sprintf(" (%s)", andMore(more))
	}
	if verb := v.verb(first.Action); verb != "" {
		line += " " + verb
	}
	return cut(line+": "+strings.Join(reasons(findings), "; "), warningAtMost)
}

// reasons are the findings' details, each once, after the protections that are
// lost by any of them.
func reasons(findings []Finding) []string {
	var lost, details []string
	for _, f := range findings {
		for _, l := range f.Lost {
			if !slices.Contains(lost, l) {
				lost = append(lost, l)
			}
		}
		if !slices.Contains(details, f.Detail) {
			details = append(details, f.Detail)
		}
	}
	if len(lost) > 0 {
		details = append([]string{"takes away " + strings.Join(lost, ", ")}, details...)
	}
	return details
}

func (v Verdict) verb(a Action) string {
	switch {
	case !a.changes():
		return ""
	case v.moment == OnTemplate:
		return "will be " + done[a] + " on its pods"
	default:
		return "was " + done[a]
	}
}

// done says what was done to a field.
var done = map[Action]string{Inject: "added", Normalise: "changed", Strip: "removed"}

func (v Verdict) routine(findings []Finding) string {
	return cut("made ready for AI nodes: "+strings.Join(reasons(findings), "; "), warningAtMost)
}

// fit keeps lines within what the API server passes on.
func fit(lines []string) []string {
	const last = 64 // room for the line that says how many were left out
	size := 0
	for i, line := range lines {
		size += utf8.RuneCountInString(line)
		if size > warningsAtMost-last {
			return append(lines[:i:i], fmt.Sprintf("%s on AI nodes", andMore(len(lines)-i)))
		}
	}
	return lines
}

// Refusal is the one text that lists every violation with its fix; empty where
// nothing is refused.
//
//	cannot run on an AI node:
//	- gpu: spec.containers[0].resources.limits[nvidia.com/gpu]: 500m is not a whole number of cards. Fix: ask for whole cards
func (v Verdict) Refusal() string {
	var b strings.Builder
	for _, f := range v.Findings {
		if f.Action == Deny {
			fmt.Fprintf(&b, "\n- %s: %s: %s. Fix: %s", f.Feature, f.Field, f.Detail, f.Remedy)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "cannot run on an AI node:" + b.String()
}

func andMore(n int) string { return fmt.Sprintf("and %d more", n) }

// cut shortens s to at most n runes.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	runes := []rune(s)
	return string(runes[:n-1]) + "…"
}
