package diagnosis

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// marks and their colours on terminals that have them.
var marks = map[Severity]struct{ mark, colour string }{
	OK: {"√", "\x1b[32m"}, Warning: {"‼", "\x1b[33m"}, Error: {"×", "\x1b[31m"},
}

const plain = "\x1b[0m"

// width is how many columns text takes at most, and indent that of all lines but an area's
// and a finding's first.
const (
	width  = 80
	indent = "    "
)

// Write shows findings to a person, an area after the other.
func Write(out io.Writer, findings []Finding, coloured bool) error {
	var b strings.Builder
	title := ""
	for _, f := range findings {
		head := Upper(f.Area)
		if f.Node != "" {
			head += " " + f.Node
		}
		if head != title {
			if title != "" {
				b.WriteString("\n")
			}
			title = head
			fmt.Fprintln(&b, Clean(head))
		}
		mark := marks[f.Severity].mark
		if coloured {
			mark = marks[f.Severity].colour + mark + plain
		}
		fmt.Fprintln(&b, mark+" "+folded(f.ID+": "+f.What))
		if !f.Bad() {
			continue
		}
		for _, more := range append([]string{f.Why}, f.Fix...) {
			if more != "" {
				fmt.Fprintln(&b, indent+folded(Upper(more)))
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// Upper is text that begins with a capital letter.
func Upper(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + text[size:]
}

// Clean takes out what would steer a terminal: servers and programs are quoted here.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// folded breaks text between words. What stands behind ":  " is a command: it is left whole,
// so that it can be copied, and begins a line if it does not fit.
func folded(text string) string {
	var lines []string
	line := ""
	// add puts part behind gap, or on a line of its own behind lead.
	add := func(gap, lead, part string) {
		switch {
		case line == "":
		case len(indent)+utf8.RuneCountInString(line+gap+part) > width:
			lines, line = append(lines, line), lead
		default:
			line += gap
		}
		line += part
	}
	for i, part := range strings.Split(Clean(text), ":  ") {
		if i > 0 {
			line += ":"
			add("  ", "  ", strings.Join(strings.Fields(part), " "))
			continue
		}
		for word := range strings.FieldsSeq(part) {
			add(" ", "", word)
		}
	}
	return strings.Join(append(lines, line), "\n"+indent)
}
