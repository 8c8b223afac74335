package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/configs"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type configsOptions struct {
	env   *Env
	print output.Flags
}

func newConfigs(env *Env) *cobra.Command {
	o := &configsOptions{env: env, print: output.NewFlags()}
	cmd := &cobra.Command{
		Use:   "configs",
		Short: "List the imported clusters",
		Example: templates.Examples(`
			# List the imported clusters
			kubectl ainode configs

			# With the nodes bound to each
			kubectl ainode configs -o wide`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.print.Validate(); err != nil {
				return flagError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.print.AddFlags(cmd)
	return cmd
}

func (o *configsOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	list, err := hub.ClusterConfigs(ctx)
	if err != nil {
		return preflight.Viewer.Explain(ctx, fmt.Errorf("list configs: %w", err), "list configs", preflight.Needs{Cluster: hub, Rights: configs.ListRights()})
	}
	if len(list.Items) == 0 && o.print.IsTable() {
		fmt.Fprintln(o.env.ErrOut, "No cluster is imported. Import one:  kubectl ainode import NAME")
		return nil
	}
	if o.print.IsTable() {
		if nodes, err := hub.AINodes(ctx); err == nil { // who may not read them is shown the configs all the same
			for _, text := range configs.Lingering(list.Items, nodes.Items) {
				fmt.Fprintln(o.env.ErrOut, text)
			}
		}
	}
	return o.print.Print(o.env.Out, list, func() *metav1.Table { return configs.Table(list.Items, o.env.Clock.Now()) })
}
