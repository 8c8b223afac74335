package doctor

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/ainode/ainode/api/contract"
)

// List is what programs read: every check that was made, the good ones too.
type List struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Items      []Finding `json:"items"`
}

// NewList makes the list of findings.
func NewList(findings []Finding) List {
	list := List{APIVersion: "cli." + contract.Group + "/v1alpha1", Kind: "DiagnosisList", Items: findings}
	if findings == nil {
		list.Items = []Finding{}
	}
	return list
}

// marks and their colours on terminals that have them.
var marks = map[Severity]struct{ mark, colour string }{
	OK: {"√", "\x1b[32m"}, Warning: {"‼", "\x1b[33m"}, Error: {"×", "\x1b[31m"},
}

const plain = "\x1b[0m"

// width is how many columns text takes at most. Commands are left whole, so that
// they can be copied.
const width = 80

// titles of the areas.
var titles = map[Area]string{Hub: "Hub", Target: "Target", Webhook: "Webhook", Node: "Node"}

// Write shows the findings to a person, an area after the other.
func Write(out io.Writer, findings []Finding, coloured bool) error {
	title := ""
	for i, f := range findings {
		head := titles[f.Area]
		if f.Node != "" {
			head += " " + f.Node
		}
		if head != title {
			if i > 0 {
				fmt.Fprintln(out)
			}
			if err := printers.WriteEscaped(out, head); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			fmt.Fprintln(out)
			title = head
		}
		mark := marks[f.Severity].mark
		if coloured {
			mark = marks[f.Severity].colour + mark + plain
		}
		fmt.Fprint(out, mark+" ")
		text := folded(f.ID+": "+f.What, "    ")
		if f.Bad() {
			for _, more := range append([]string{f.Why}, f.Fix...) {
				if more != "" {
					text += "\n    " + folded(upper(more), "    ")
				}
			}
		}
		if err := printers.WriteEscaped(out, text); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// folded breaks text between words, each line but the first after indent. What
// stands behind ":  " is a command and begins a line if it does not fit.
func folded(text, indent string) string {
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, ":  ", ":\x00")), " ")
	var lines []string
	for i, part := range strings.Split(text, "\x00") {
		if i == 0 {
			var b strings.Builder
			_, _ = term.NewWordWrapWriter(&b, uint(width-len(indent))).Write([]byte(part)) // a Builder takes everything
			lines = strings.Split(b.String(), "\n")
			continue
		}
		last := &lines[len(lines)-1]
		if len(indent)+len([]rune(*last))+2+len([]rune(part)) <= width {
			*last += "  " + part
		} else {
			lines = append(lines, "  "+part)
		}
	}
	return strings.Join(lines, "\n"+indent)
}

// Short are the findings alone, in rows: node or area, severity, id, and the rest.
func Short(findings []Finding) [][]string {
	rows := [][]string{}
	for _, f := range findings {
		if !f.Bad() {
			continue
		}
		subject := string(f.Area)
		if f.Node != "" {
			subject = f.Node
		}
		rows = append(rows, []string{subject, string(f.Severity), f.ID, sentences(f.What, "", f.Fix)})
	}
	return rows
}

// Sum counts the findings: "2 findings: 1 error, 1 warning".
func Sum(findings []Finding) (text string, bad bool) {
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	n := count[Error] + count[Warning]
	if n == 0 {
		return fmt.Sprintf("no findings: %s", many(count[OK], "check")), false
	}
	return fmt.Sprintf("%s: %s, %s", many(n, "finding"), many(count[Error], "error"), many(count[Warning], "warning")), true
}
