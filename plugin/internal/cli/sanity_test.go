package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

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
		for _, stub := range []string{"doctor", "top", "run", "renew"} {
			require.NotEqual(t, stub, c.Name(), "a verb that does nothing yet is not listed")
		}
	}
}
