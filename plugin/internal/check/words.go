package check

import (
	"fmt"
	"strings"

	"github.com/ainode/ainode/api/contract"
)

// becomes says what will be done to a field.
var becomes = map[contract.Action]string{
	contract.Inject: "will be added", contract.Normalise: "will be changed", contract.Strip: "will be removed",
}

// words are a finding in words.
//
//	spec.hostNetwork will be removed: an AI node's network is not the cluster's. Fix: remove it; the pod is reached at its podIP
func words(f contract.Finding, pod bool) string {
	var b strings.Builder
	b.WriteString(f.Field)
	if f.Routine {
		return f.Field + ": " + f.Detail
	}
	if what, ok := becomes[f.Action]; ok {
		b.WriteString(" " + what)
		if !pod {
			b.WriteString(" on its pods")
		}
	}
	b.WriteString(": ")
	if len(f.Lost) > 0 {
		b.WriteString("takes away " + strings.Join(f.Lost, ", ") + "; ")
	}
	b.WriteString(f.Detail)
	if f.Remedy != "" {
		b.WriteString(". Fix: " + f.Remedy)
	}
	return b.String()
}

// Count counts the findings of a level.
func Count(findings []Finding, level Level) int {
	n := 0
	for _, f := range findings {
		if f.Level == level {
			n++
		}
	}
	return n
}

// Where is the place of a finding: file:line.
func (f Finding) Where() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}

// Place is where an object begins: file:line.
func (o *Object) Place() string { return Finding{File: o.File, Line: o.Line}.Where() }
