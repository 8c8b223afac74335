package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"
)

// completer is the executable that kubectl looks for on the PATH to complete a
// plugin's arguments.
const completer = "kubectl_complete-ainode"

const completerScript = `#!/bin/sh
exec kubectl-ainode __complete "$@"
`

type completionOptions struct {
	env     *Env
	shell   string
	install bool
	dir     string
}

func newCompletion(env *Env) *cobra.Command {
	o := &completionOptions{env: env}
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell|kubectl",
		Short: "Set up completion of verbs, nodes and configs in your shell",
		Long: templates.LongDesc(`
			Set up completion of verbs, nodes and configs in your shell.

			"kubectl ainode" is completed by kubectl, which asks a second executable, kubectl_complete-ainode: "completion kubectl"
			prints it, with --install it is put beside this plugin. The shells' own are for calling kubectl-ainode itself.`),
		Example: templates.Examples(`
			# Complete "kubectl ainode …" (kubectl's own completion must be set up)
			kubectl ainode completion kubectl --install

			# Complete "kubectl-ainode …" in bash
			source <(kubectl ainode completion bash)`),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell", "kubectl"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(cmd.ValidArgs); err != nil {
				return err
			}
			return o.run(cmd.Root())
		},
	}
	cmd.Flags().BoolVar(&o.install, "install", o.install, "With kubectl: put the executable beside this plugin.")
	return cmd
}

func (o *completionOptions) complete(args []string) error {
	if len(args) != 1 {
		return usageError("completion", "one shell is needed, %d given", len(args))
	}
	o.shell = args[0]
	if o.install {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this plugin: %w", err)
		}
		o.dir = filepath.Dir(self)
	}
	return nil
}

func (o *completionOptions) validate(shells []string) error {
	switch {
	case !slices.Contains(shells, o.shell):
		return usageError("completion", "%q is none of bash, zsh, fish, powershell, kubectl", o.shell)
	case o.install && o.shell != "kubectl":
		return usageError("completion", "--install goes with kubectl only")
	case o.install && runtime.GOOS == "windows":
		return usageError("completion", "kubectl completes no plugins on Windows")
	}
	return nil
}

func (o *completionOptions) run(root *cobra.Command) error {
	// The scripts name the program they are for, which is not "kubectl ainode".
	delete(root.Annotations, cobra.CommandDisplayNameAnnotation)
	out := o.env.Out
	switch o.shell {
	case "bash":
		return root.GenBashCompletionV2(out, true)
	case "zsh":
		return root.GenZshCompletion(out)
	case "fish":
		return root.GenFishCompletion(out, true)
	case "powershell":
		return root.GenPowerShellCompletionWithDesc(out)
	}
	if !o.install {
		fmt.Fprint(out, completerScript)
		return nil
	}
	path := filepath.Join(o.dir, completer)
	if have, err := os.ReadFile(path); err == nil && string(have) == completerScript {
		fmt.Fprintf(out, "%s unchanged\n", path)
		return nil
	}
	if err := os.WriteFile(path, []byte(completerScript), 0o755); err != nil { // an executable for everybody
		return fmt.Errorf("install the completion: %w", err)
	}
	fmt.Fprintf(out, "%s installed\n", path)
	return nil
}

// completionTime is how long a shell is kept waiting for names.
const completionTime = 3 * time.Second

func completeNodes(env *Env) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(contextOf(cmd)), completionTime)
		defer cancel()
		hub, err := env.Clusters.Hub()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := hub.AINodes(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, n := range list.Items {
			if !slices.Contains(args, n.Name) {
				names = append(names, n.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeConfigs(env *Env) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(contextOf(cmd)), completionTime)
		defer cancel()
		hub, err := env.Clusters.Hub()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := hub.ClusterConfigs(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range list.Items {
			names = append(names, c.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAddresses offers those of the machine that the line names.
func completeAddresses(env *Env) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(contextOf(cmd)), completionTime)
		defer cancel()
		hub, err := env.Clusters.Hub()
		if err != nil || len(args) != 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		record, err := hub.AINode(ctx, args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return record.Status.Addresses, cobra.ShellCompDirectiveNoFileComp
	}
}

func contextOf(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
