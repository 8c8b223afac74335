package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ainode/ainode/api/contract"
)

// Formats of Write, besides none, which is for a person.
var Formats = []string{"json", "short"}

// List is what programs read: every check that was made, the good ones too.
type List struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Items      []Finding `json:"items"`
}

var marks = map[Severity]struct{ mark, colour string }{
	OK: {"√", "\x1b[32m"}, Warning: {"‼", "\x1b[33m"}, Error: {"×", "\x1b[31m"},
}

// Write writes findings in a format; coloured is heeded where a person reads.
func Write(out io.Writer, format string, findings []Finding, coloured bool) error {
	var b strings.Builder
	switch format {
	case "json":
		raw, err := json.MarshalIndent(List{"cli." + contract.Group + "/v1alpha1", "DiagnosisList", findings}, "", "    ")
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		fmt.Fprintln(&b, string(raw))
	case "short":
		for _, f := range findings {
			if f.Bad() {
				fmt.Fprintln(&b, clean(strings.Join(append([]string{string(f.Severity), f.ID, f.What}, f.Fix...), "  ")))
			}
		}
	default:
		prose(&b, findings, coloured)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func prose(b *strings.Builder, findings []Finding, coloured bool) {
	area := ""
	for i, f := range findings {
		if f.Area != area {
			if i > 0 {
				fmt.Fprintln(b)
			}
			area = f.Area
			fmt.Fprintln(b, upper(area))
		}
		mark := marks[f.Severity].mark
		if coloured {
			mark = marks[f.Severity].colour + mark + "\x1b[0m"
		}
		fmt.Fprintln(b, mark+" "+folded(f.ID+": "+f.What))
		for _, more := range append([]string{f.Why}, f.Fix...) {
			if more != "" {
				fmt.Fprintln(b, "    "+folded(upper(more)))
			}
		}
	}
}

// Sum counts the findings, and says whether there are any.
func Sum(findings []Finding) (text string, bad bool) {
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	if count[Error]+count[Warning] == 0 {
		return fmt.Sprintf("no findings: %s", many(count[OK], "check")), false
	}
	return fmt.Sprintf("%s: %s, %s", many(count[Error]+count[Warning], "finding"), many(count[Error], "error"), many(count[Warning], "warning")), true
}

func many(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func upper(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// clean takes out what would steer a terminal: servers and programs are quoted here.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// width is how many columns text takes at most, after an indent of four. A command,
// which stands behind ":  ", is left whole so that it can be copied.
const width = 76

func folded(text string) string {
	text, command, _ := strings.Cut(clean(text), ":  ")
	if command != "" {
		text += ":"
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	switch {
	case command == "":
	case utf8.RuneCountInString(line)+2+utf8.RuneCountInString(command) <= width:
		line += "  " + command
	default:
		lines, line = append(lines, line), "  "+command
	}
	return strings.Join(append(lines, line), "\n    ")
}
