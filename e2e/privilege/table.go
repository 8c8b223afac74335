package privilege

import (
	"fmt"
	"slices"
	"strings"
)

// Right is what an account may do of one resource.
type Right struct {
	// Verbs in alphabetical order.
	Verbs string
	// Resource as kubectl names it, or a path.
	Resource string
	// Of is which of them.
	Of string
}

// Grant is a right with its reason.
type Grant struct {
	Right
	// Why it is needed; of what Kubernetes grants without need, who refuses it.
	Why string
}

// Account is one that acts for an AI node.
type Account struct {
	// Title and Text stand above its table.
	Title, Text string
	Grants      []Grant
	// ServiceAccount is false where somebody else is acted as.
	ServiceAccount bool
}

// Rights are all that the account may do, what everybody may who has an account at all
// included, a line each and sorted.
func (a Account) Rights() []string {
	grants := slices.Concat(a.Grants, everybody)
	if a.ServiceAccount {
		grants = slices.Concat(grants, serviceAccounts)
	}
	var lines []string
	for _, g := range grants {
		lines = append(lines, g.String())
	}
	slices.Sort(lines)
	return lines
}

// String is the right in one line.
func (r Right) String() string { return r.Resource + ": " + r.Verbs + " (" + r.Of + ")" }

// Markdown is the list as tables.
func Markdown() string {
	var b strings.Builder
	for _, a := range append(Accounts(),
		Account{Title: "Every service account, besides", Text: "What Kubernetes lets each of them do.", Grants: serviceAccounts},
		Account{Title: "Everybody, besides", Text: "What Kubernetes lets each user do whom it knows (`system:basic-user`, `system:discovery`).", Grants: everybody},
	) {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| may | of | why |\n|---|---|---|\n", a.Title, a.Text)
		for _, g := range a.Grants {
			fmt.Fprintf(&b, "| %s `%s` | %s | %s |\n", strings.ReplaceAll(g.Verbs, " ", ", "), g.Resource, g.Of, g.Why)
		}
	}
	return b.String()
}
