package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/configs"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type importOptions struct {
	env        *Env
	name       string
	nodeServer string
	dryRun     dryRun
}

func newImport(env *Env) *cobra.Command {
	o := &importOptions{env: env}
	cmd := &cobra.Command{
		Use:   "import [NAME]",
		Short: "Import the cluster of your kubeconfig, to bind nodes to",
		Long: templates.LongDesc(`
			Import the cluster that your kubeconfig names, so that AI nodes can be bound to it.

			The config holds the cluster's address, CA and identity, and no credential: binding acts with the rights of the
			person who binds. NAME is the kubeconfig's name of the cluster unless given.

			Importing again brings address and CA up to date and says what has changed; another cluster under the same name is
			refused. Nodes that are bound keep the address they were bound with.

			If the hub, which keeps the config, is another cluster, name it with --hub-context.`),
		Example: templates.Examples(`
			# Import the current context's cluster as "prod"
			kubectl ainode import prod

			# Import another context's cluster; the hub is the one of context "pool"
			kubectl ainode import prod --context prod-admin --hub-context pool

			# See what importing again would change
			kubectl ainode import prod --dry-run=client

			# The AI nodes reach it at another address than you do
			kubectl ainode import prod --node-server https://10.0.0.5:6443`),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.nodeServer, "node-server", o.nodeServer, "URL of the cluster's API server as the AI nodes reach it. Default: as your kubeconfig reaches it.")
	o.dryRun.addFlag(cmd)
	return cmd
}

func (o *importOptions) complete(args []string) error {
	switch len(args) {
	case 0:
		target, err := o.env.Clusters.Target()
		if err != nil {
			return err
		}
		o.name = configs.DefaultName(target.ContextName)
		if o.name == "" {
			return usageError("import", "your kubeconfig gives the cluster no name: give one")
		}
	case 1:
		o.name = args[0]
	default:
		return usageError("import", "one name of a config is needed, %d given", len(args))
	}
	return nil
}

func (o *importOptions) validate() error {
	if err := o.dryRun.validate("import"); err != nil {
		return err
	}
	return configs.ValidateName(o.name)
}

func (o *importOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	target, err := o.env.Clusters.Target()
	if err != nil {
		return err
	}
	if err := preflight.Binder.Check(ctx, "import a cluster", configs.ImportRights(hub, target)...); err != nil {
		return err
	}
	seen, err := configs.Look(ctx, target, o.nodeServer, "--node-server")
	if err != nil {
		return err
	}
	all, err := hub.ClusterConfigs(ctx)
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	done, err := configs.Import(ctx, hub, o.name, seen, !o.dryRun.client(), o.dryRun.options()...)
	if err != nil {
		return err
	}
	progress := o.env.progress()
	warnUnreached(progress, o.name, seen.Address.Server, seen.Unreached, "--node-server")
	if d := kube.Judge(seen.Version); d != nil {
		progress.Warn(o.name, "%s: %s. %s", d.What, d.Why, d.Fix)
	}
	for _, change := range done.Changes {
		progress.Line(o.name, "%s", change)
	}
	if len(done.Changes) > 0 && len(done.Bound) > 0 {
		progress.Warn(o.name, "%s bound before: what is bound keeps the server and CA it was bound with. If it can't reach the cluster there any more, bind it anew:  "+
			"kubectl ainode unbind NODE && kubectl ainode bind NODE --to %s", strings.Join(done.Bound, ", "), o.name)
	}
	if others := configs.Others(all.Items, o.name, seen.UID); done.What == configs.Imported && len(others) > 0 {
		progress.Warn("", "the same cluster is imported as %s too", strings.Join(others, ", "))
	}
	o.dryRun.announce(o.env, "clusterconfig/%s %s (%s, Kubernetes %s)", o.name, done.What, seen.Address.Server, seen.Version)
	return nil
}

// warnUnreached tells that machines may not reach an API server either.
func warnUnreached(progress *output.Progress, about, server string, unreached error, flag string) {
	if unreached != nil {
		progress.Warn(about, "%s was not reached from here straight (%v); if the AI nodes can't either, name another address:  %s https://HOST:PORT", server, unreached, flag)
	}
}
