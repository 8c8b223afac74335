// Package diagnosis is what the two doctors have to say: kubectl ainode doctor from the
// person's side, ainode-agent doctor on the machine. Programs read the same list of both.
package diagnosis

import (
	"fmt"

	"github.com/ainode/ainode/api/contract"
)

// Severity is how grave a finding is.
type Severity string

// The severities.
const (
	// OK is no finding: it says what was seen.
	OK Severity = "ok"
	// Warning: it works, and something will surprise. What can't be read is one too.
	Warning Severity = "warning"
	// Error: something does not work, or a binding would not.
	Error Severity = "error"
)

// Finding is what one check has to say.
type Finding struct {
	// ID is the check's. It is API: people write it in scripts.
	ID string `json:"id"`
	// Area is what the check is about, for example "hub" or "container runtime".
	Area string `json:"area"`
	// Node is the AI node that it is about, if it is one of several.
	Node     string   `json:"node,omitempty"`
	Severity Severity `json:"severity"`
	// What is seen, and Why it matters.
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	// Fix is what to do, one way a line, mostly "words:  command to type next".
	Fix []string `json:"fix,omitempty"`
	// Unread is true where the check could not look.
	Unread bool `json:"unread,omitempty"`
	// Told is true of what speaks against nothing, and bind tells all the same.
	Told bool `json:"-"`
}

// Bad reports whether f is more than a sight.
func (f Finding) Bad() bool { return f.Severity != OK }

// List is what programs read: every check that was made, the good ones too.
type List struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Items      []Finding `json:"items"`
}

// NewList makes the list of findings.
func NewList(findings []Finding) List {
	if findings == nil {
		findings = []Finding{}
	}
	return List{APIVersion: "cli." + contract.Group + "/v1alpha1", Kind: "DiagnosisList", Items: findings}
}

// Sum counts the findings, "2 findings: 1 error, 1 warning", and says whether there are any.
func Sum(findings []Finding) (text string, bad bool) {
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	n := count[Error] + count[Warning]
	if n == 0 {
		return "no findings: " + Count(count[OK], "check"), false
	}
	return fmt.Sprintf("%s: %s, %s", Count(n, "finding"), Count(count[Error], "error"), Count(count[Warning], "warning")), true
}

// Count is a number of things: "1 node", "2 nodes".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
