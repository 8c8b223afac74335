package house

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPagesNameTestsThatThereAre keeps what the docs point at in step with the code: a
// promise whose test was renamed away is one that nobody can check.
func TestPagesNameTestsThatThereAre(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, f := range sources(t) {
		if !f.test() {
			continue
		}
		for _, d := range f.ast.Decls {
			if function, ok := d.(*ast.FuncDecl); ok {
				there[function.Name.Name] = true
			}
		}
	}
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	name := regexp.MustCompile(`\b[Tt]est[A-Z]\w*`)
	named := 0
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, test := range name.FindAllString(string(raw), -1) {
			named++
			require.True(t, there[test], "%s names %s, which is not there", page, test)
		}
	}
	require.Greater(t, named, 100, "the pages name fewer tests than this looks for")
}
