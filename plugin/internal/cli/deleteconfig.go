package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/configs"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type deleteConfigOptions struct {
	env            *Env
	name           string
	ignoreNotFound bool
	dryRun         dryRun
}

func newDeleteConfig(env *Env) *cobra.Command {
	o := &deleteConfigOptions{env: env}
	cmd := &cobra.Command{
		Use:   "delete-config NAME",
		Short: "Forget an imported cluster that no node is bound to",
		Long: templates.LongDesc(`
			Forget an imported cluster that no node is bound to.

			Nothing is changed on the cluster itself. A name that is not there is an error, as with kubectl delete.`),
		Example: templates.Examples(`
			# Forget a cluster; refused while a node is bound to it
			kubectl ainode delete-config prod

			# See first what is bound to it
			kubectl ainode configs -o wide

			# In a script that may run twice
			kubectl ainode delete-config prod --ignore-not-found`),
		ValidArgsFunction: completeConfigs(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.dryRun.validate("delete-config"); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.ignoreNotFound, "ignore-not-found", o.ignoreNotFound, ignoreNotFoundUsage)
	o.dryRun.addFlag(cmd)
	return cmd
}

func (o *deleteConfigOptions) complete(args []string) (err error) {
	o.name, err = configName("delete-config", args)
	return err
}

func (o *deleteConfigOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	if err := preflight.Binder.Check(ctx, "delete a config", preflight.Needs{Cluster: hub, Rights: configs.DeleteRights(o.name)}); err != nil {
		return err
	}
	config, err := hub.ClusterConfig(ctx, o.name)
	switch {
	case apierrors.IsNotFound(err) && o.ignoreNotFound:
		fmt.Fprintf(o.env.Out, "clusterconfig/%s unchanged (there is no such config)\n", o.name)
		return nil
	case apierrors.IsNotFound(err):
		return configs.Unknown(ctx, hub, o.name)
	case err != nil:
		return fmt.Errorf("read config %q: %w", o.name, err)
	}
	if err := configs.Deletable(config); err != nil {
		return err
	}
	if !o.dryRun.client() {
		if err := configs.Delete(ctx, hub, config, o.dryRun.options()...); err != nil {
			return err
		}
	}
	o.dryRun.announce(o.env, "clusterconfig/%s deleted", o.name)
	return nil
}
