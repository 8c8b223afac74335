package doctor

import "github.com/ainode/ainode/api/diagnosis"

// Short are the findings alone, in rows: node or area, severity, id, and the rest.
func Short(findings []diagnosis.Finding) [][]string {
	rows := [][]string{}
	for _, f := range findings {
		if !f.Bad() {
			continue
		}
		subject := f.Area
		if f.Node != "" {
			subject = f.Node
		}
		rows = append(rows, []string{subject, string(f.Severity), f.ID, sentences(f.What, "", f.Fix)})
	}
	return rows
}
