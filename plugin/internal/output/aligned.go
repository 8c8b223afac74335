package output

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"k8s.io/cli-runtime/pkg/printers"
)

// Aligned writes rows in columns without headers, two spaces apart; the last column
// is as long as it is. What files and servers say is escaped: it may hold terminal
// control sequences.
func Aligned(out io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			cell = strings.ReplaceAll(cell, "\n", " ")
			if b.WriteString(cell); i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		if err := printers.WriteEscaped(out, b.String()); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		fmt.Fprintln(out)
	}
	return nil
}
