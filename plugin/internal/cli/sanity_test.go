package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/util/sanity"

	"github.com/ainode/ainode/plugin/internal/kube"
)

func fullTree() *cobra.Command {
	flags := kube.NewFlags("test", os.Stderr, false)
	return NewRoot(&Env{IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &bytes.Buffer{}, ErrOut: &bytes.Buffer{}},
		Clusters: flags, Flags: flags.AddFlags, Version: "v0.1.0"})
}

func TestTreeIsSaneByKubectlsRules(t *testing.T) {
	t.Parallel()
	for _, err := range sanity.RunCmdChecks(fullTree(), sanity.AllCmdChecks, nil) {
		t.Error(err)
	}
}

func TestHelpFits80Columns(t *testing.T) {
	t.Parallel()
	root := fullTree()
	for _, c := range append(root.Commands(), root) {
		for line := range strings.Lines(c.Long + "\n" + c.UsageString()) {
			// An example is one command, and one of kubectl's flags speaks of a long address.
			if line = strings.TrimRight(line, "\n"); !strings.Contains(line, "kubectl ainode ") && !strings.Contains(line, "http://golang.org") {
				require.LessOrEqual(t, utf8.RuneCountInString(line), 80, "%s: %s", c.Name(), line)
			}
		}
	}
}

func TestEveryVerbShowsHowItIsTyped(t *testing.T) {
	t.Parallel()
	root := fullTree()
	for _, c := range root.Commands() {
		if c.Hidden {
			continue
		}
		require.True(t, strings.HasPrefix(c.CommandPath(), "kubectl ainode "), c.CommandPath())
		require.NotEmpty(t, c.Short, c.Name())
		require.NotEmpty(t, c.GroupID, c.Name())
		require.GreaterOrEqual(t, strings.Count(c.Example, "kubectl ainode "), 2, "%s: two examples at least, as they are typed", c.Name())
	}
}

func TestEveryVerbThatChangesSomethingHasADryRun(t *testing.T) {
	t.Parallel()
	for _, c := range fullTree().Commands() {
		switch c.Name() {
		case "add", "remove", "import", "delete-config", "bind", "unbind", "renew", "run":
			flag := c.Flags().Lookup("dry-run")
			require.NotNil(t, flag, c.Name())
			require.Equal(t, dryRunClient, flag.NoOptDefVal, "%s: as kubectl has it", c.Name())
		}
	}
}
