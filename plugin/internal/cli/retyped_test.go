package cli

import (
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestACommandIsTypedAgainAsItWas(t *testing.T) {
	t.Parallel()
	for want, typed := range map[string][]string{
		"bind ai-1 --skip gpus": nil,
		`bind ai-1 --skip a,gpus --to prod --token "$TOKEN" --token-file f`:  {"--skip", "a", "--skip=gpus", "--to", "prod", "--token", "secret", "--token-file=f"},
		`bind ai-1 --as-group a --as-group 'b c' --skip gpus --to 'it'\''s'`: {"--as-group", "a", "--as-group", "b c", "--to", "it's"},
		"bind ai-1 --skip gpus --to http://me:xxxxx@proxy:8080":              {"--to", "http://me:secret@proxy:8080"},
		"bind ai-1 --dry-run=client --skip gpus --to '' --wait=false":        {"--dry-run", "--wait=false", "--to="},
	} {
		cmd := &cobra.Command{Use: "bind", Run: func(*cobra.Command, []string) {}}
		flags := cmd.Flags()
		flags.String("to", "", "")
		flags.String("token", "", "")
		flags.String("token-file", "", "")
		flags.String("dry-run", "none", "")
		flags.Lookup("dry-run").NoOptDefVal = "client"
		flags.Bool("wait", true, "")
		flags.StringArray("as-group", nil, "")
		flags.StringSlice("skip", nil, "")
		require.NoError(t, cmd.ParseFlags(typed))
		require.Equal(t, want, retyped(cmd, []string{"ai-1"}, "skip", []string{"gpus"}))
	}
}
