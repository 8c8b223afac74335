package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/ainode/ainode/api/diagnosis"
)

// Formats of Write, besides none, which is for a person.
var Formats = []string{"json", "short"}

// Write writes findings in a format; coloured is heeded where a person reads.
func Write(out io.Writer, format string, findings []diagnosis.Finding, coloured bool) error {
	var b strings.Builder
	switch format {
	case "json":
		raw, err := json.MarshalIndent(diagnosis.NewList(findings), "", "    ")
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		fmt.Fprintln(&b, string(raw))
	case "short":
		for _, f := range findings {
			if f.Bad() {
				fmt.Fprintln(&b, diagnosis.Clean(strings.Join(append([]string{string(f.Severity), f.ID, f.What}, f.Fix...), "  ")))
			}
		}
	default:
		return diagnosis.Write(out, findings, coloured)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
