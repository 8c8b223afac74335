// Package cli is the command tree of kubectl ainode: one file a verb, each with
// options that are completed, validated and run.
package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/util/templates"
	"k8s.io/kubectl/pkg/util/term"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/output"
)

// Env is everything a command gets from outside.
type Env struct {
	genericiooptions.IOStreams
	Clock clock.Clock
	// Clusters finds hub and target.
	Clusters kube.Clusters
	// Flags adds the flags that Clusters is told by; nil in tests.
	Flags func(*pflag.FlagSet)
	// Version of this program.
	Version string
	// Color says whether Out may be coloured.
	Color bool
}

func (e *Env) progress() *output.Progress { return output.NewProgress(e.ErrOut) }

// Main runs one command line and returns the exit code: 0 done or unchanged, 1 error,
// 2 findings; that of the container which run has waited for.
func Main(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	// Libraries of ours log; a person gets errors, not logs.
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	version := ownVersion()
	flags := kube.NewFlags("kubectl-ainode/"+version, streams.ErrOut, printers.AllowsColorOutput(streams.ErrOut))
	return Run(ctx, args, &Env{
		IOStreams: streams, Clock: clock.RealClock{}, Clusters: flags, Flags: flags.AddFlags, Version: version,
		Color: printers.AllowsColorOutput(streams.Out),
	})
}

// Run is Main with everything from outside in env.
func Run(ctx context.Context, args []string, env *Env) int {
	out := &output.Kept{Writer: env.Out}
	kept := *env
	kept.Out = out
	root := NewRoot(&kept)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil && out.Err != nil {
		err = fmt.Errorf("print: %w", out.Err) // half an answer is none
	}
	if err != nil {
		return report(ctx, env.ErrOut, err)
	}
	return 0
}

// NewRoot makes the command tree.
func NewRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-ainode",
		Short: "Bind GPU machines to a cluster as nodes, and give them back",
		Long: templates.LongDesc(`
			Bind GPU machines to a cluster as nodes, and give them back.

			AI nodes are GPU machines that live outside a cluster and are nodes of it only while they are bound.
			Two clusters play a part: the hub holds the records of the machines, the target is the one that a machine is
			bound to. Mostly both are the one your kubeconfig names; if not, --context names the target and --hub-context the hub.`),
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl ainode"},
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		// "VERB" is what follows, see usage.
		DisableFlagsInUseLine:      true,
		SuggestionsMinimumDistance: 2,
		Args:                       noVerb,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.ErrOut)
	if env.Flags != nil {
		env.Flags(root.PersistentFlags())
	}
	group := func(id, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("nodes", "Nodes:", newList(env), newDescribe(env), newTop(env), newAdd(env), newRemove(env))
	group("binding", "Binding:", newImport(env), newConfigs(env), newBind(env), newUnbind(env), newRenew(env), newDeleteConfig(env))
	group("checking", "Checking:", newCheck(env), newExplain(env), newDoctor(env))
	group("workloads", "Workloads:", newRun(env))
	group("other", "Other:", newCompletion(env), newVersion(env))
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		c.Hidden = c.Hidden || c.Name() == "help" // --help is what is shown everywhere
		c.Long = folded(c.Long)
	}
	root.Long = folded(root.Long)
	root.SetUsageTemplate(usage)
	return root
}

// usage is cobra's, with kubectl's many connection flags kept out of each page.
const usage = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}} VERB{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}{{if .HasParent}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}{{end}}

kubectl's connection flags work too (--context, --kubeconfig, --as, …){{if not .HasParent}}:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{else}}.
See them all:  kubectl ainode --help{{end}}
`

// folded breaks a text of paragraphs for terminals of 80 columns.
func folded(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	var b strings.Builder
	_, _ = term.NewWordWrapWriter(&b, 80).Write([]byte(strings.Join(lines, "\n"))) // a Builder takes everything
	return b.String()
}

// writeFileSecret writes a file that only its owner may read. A file that is there
// is replaced, so that its old rights don't count.
func writeFileSecret(path string, data []byte) error {
	file, err := os.CreateTemp(dirOf(path), ".ainode-*") // made with 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(data); err != nil {
		file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
