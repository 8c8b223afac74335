package privilege

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the list into docs/security.md")

const begin, end = "<!-- privileges: go test ./e2e/privilege -update -->\n", "<!-- end of privileges -->\n"

// The page says what the list says.
func TestThePageSaysWhatIsAllowed(t *testing.T) {
	t.Parallel()
	const page = "../../docs/security.md"
	raw, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(raw), begin)
	require.True(t, ok, "%s lacks %s", page, begin)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s lacks %s", page, end)
	want := before + begin + Markdown() + "\n" + end + after
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(raw), "run: go test ./e2e/privilege -update")
}

// A right without a reason is none that anybody decided on.
func TestEveryRightHasItsReason(t *testing.T) {
	t.Parallel()
	for _, a := range Accounts() {
		seen := map[string]bool{}
		for _, g := range a.Grants {
			require.NotEmpty(t, g.Why, "%s: %+v", a.Title, g.Right)
			verbs := strings.Fields(g.Verbs)
			require.True(t, slices.IsSorted(verbs), "%s: %+v", a.Title, g.Right)
			key := g.Resource + " of " + g.Of
			require.False(t, seen[key], "%s: %s stands there twice", a.Title, key)
			seen[key] = true
		}
	}
}
