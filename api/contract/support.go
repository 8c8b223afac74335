package contract

import (
	"fmt"
	"strings"
)

// SupportPage is SUPPORT.md: the table as people read it.
func SupportPage() string {
	var b strings.Builder
	b.WriteString(`# What AI nodes support

Printed from the table in api/contract (` + "`make generate`" + `); do not edit.

The webhook judges every pod of an AI node by this table, and no other pod. A pod either runs, with each change told at
` + "`kubectl apply`" + ` and kept in the annotation ` + "`" + AdmissionAnnotation + "`" + `, or is refused with all reasons at once.

| mode | what it means |
|---|---|
`)
	for _, mode := range []Action{Allow, Warn, Inject, Normalise, Strip, Deny} {
		fmt.Fprintf(&b, "| %s | %s |\n", mode, mode.Meaning())
	}
	b.WriteString(`
The mode of a row is what it mostly does; its text says the rest. ` + "`aliclouddb`" + ` is the default profile and keeps the vendor's
promises; ` + "`agent`" + ` also allows what our own node agent honours. An override sets another mode for one feature
(chart value ` + "`admission.features`" + `).

| feature | the vendor's page | ` + "`aliclouddb` | `agent`" + ` | overrides | what happens |
|---|---|---|---|---|---|
`)
	for _, row := range Table {
		overrides := make([]string, len(row.Overrides))
		for i, o := range row.Overrides {
			overrides[i] = string(o)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n",
			row.Feature, row.Vendor, row.Default, row.Agent, strings.Join(overrides, ", "), row.Text)
	}
	intro := "\nPromised, but not there yet in the node agent:\n\n"
	for _, row := range Table {
		if row.NotYet != "" {
			fmt.Fprintf(&b, "%s- `%s`: %s\n", intro, row.Feature, row.NotYet)
			intro = ""
		}
	}
	return b.String()
}
