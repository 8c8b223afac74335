package diagnosis

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a person reads stays in 80 columns, save for a command, which is left whole
// so that it can be copied; what servers say gets no control over the terminal.
func TestWrite(t *testing.T) {
	t.Parallel()
	command := "kubectl " + strings.Repeat("x", 90)
	findings := []Finding{
		{ID: "good", Area: "hub", Severity: OK, What: "well"},
		{ID: "bad", Area: "node", Node: "ai-1", Severity: Error, What: strings.Repeat("word ", 40) + "\x1b[2J", Why: strings.Repeat("because ", 30), Fix: []string{"do:  " + command, "or:  this"}},
	}
	var out bytes.Buffer
	require.NoError(t, Write(&out, findings, false))
	require.NotContains(t, out.String(), "\x1b")
	require.Contains(t, out.String(), "Hub\n√ good: well\n\nNode ai-1\n× bad: word")
	require.Contains(t, out.String(), "\n      "+command+"\n")
	require.Contains(t, out.String(), "\n    Or:  this\n")
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, command) {
			require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), width, line)
		}
	}
	out.Reset()
	require.NoError(t, Write(&out, findings[:1], true))
	require.Contains(t, out.String(), "\x1b[32m√\x1b[0m good")
}
