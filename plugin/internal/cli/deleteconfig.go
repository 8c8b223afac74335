package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/configs"
)

type deleteConfigOptions struct {
	env  *Env
	name string
}

func newDeleteConfig(env *Env) *cobra.Command {
	o := &deleteConfigOptions{env: env}
	return &cobra.Command{
		Use:   "delete-config NAME",
		Short: "Forget an imported cluster that no node is bound to",
		Example: templates.Examples(`
			# Forget a cluster; refused while a node is bound to it
			kubectl ainode delete-config prod

			# See first what is bound to it
			kubectl ainode configs -o wide`),
		ValidArgsFunction: completeConfigs(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
}

func (o *deleteConfigOptions) complete(args []string) error {
	if len(args) != 1 {
		return usageError("delete-config", "one name of a config is needed, %d given", len(args))
	}
	o.name = args[0]
	return nil
}

func (o *deleteConfigOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	config, err := hub.ClusterConfig(ctx, o.name)
	if apierrors.IsNotFound(err) {
		fmt.Fprintf(o.env.Out, "clusterconfig/%s unchanged: there is no such config\n", o.name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read config %q: %w", o.name, err)
	}
	if err := configs.Deletable(config); err != nil {
		return err
	}
	if err := configs.Delete(ctx, hub, config); err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "clusterconfig/%s deleted\n", o.name)
	return nil
}
