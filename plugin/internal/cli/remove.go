package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/bootstrap"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

type removeOptions struct {
	env   *Env
	nodes []string
}

func newRemove(env *Env) *cobra.Command {
	o := &removeOptions{env: env}
	return &cobra.Command{
		Use:   "remove NAME…",
		Short: "Take unbound machines out of the pool",
		Long: templates.LongDesc(`
			Take unbound machines out of the pool.

			The record and the account of the machine's agent go. A node that is bound is not removed: unbind it first.`),
		Example: templates.Examples(`
			# Take a machine out of the pool
			kubectl ainode remove ai-h200-01

			# One that is still bound
			kubectl ainode unbind ai-h200-01 && kubectl ainode remove ai-h200-01`),
		ValidArgsFunction: completeNodes(env),
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
}

func (o *removeOptions) complete(args []string) error {
	if len(args) == 0 {
		return usageError("remove", "the name of an AI node is needed")
	}
	o.nodes = args
	return nil
}

func (o *removeOptions) validate() error {
	var errs []error
	for _, n := range o.nodes {
		errs = append(errs, bootstrap.ValidateName(n))
	}
	return errors.Join(errs...)
}

func (o *removeOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range o.nodes {
		errs = append(errs, o.remove(ctx, hub, node))
	}
	return errors.Join(errs...)
}

func (o *removeOptions) remove(ctx context.Context, hub *kube.Cluster, node string) error {
	record, err := bootstrap.Removable(ctx, hub, node)
	if err != nil {
		return err
	}
	alive := false
	if signs, err := nodes.Signs(ctx, hub); err == nil {
		alive = !signs[node].Seen.IsZero() && signs[node].Alive(o.env.Clock.Now())
	}
	some, err := bootstrap.Remove(ctx, hub, node, record)
	if err != nil {
		return err
	}
	if !some {
		fmt.Fprintf(o.env.Out, "ainode/%s unchanged: there is no such AI node\n", node)
		return nil
	}
	fmt.Fprintf(o.env.Out, "ainode/%s removed\n", node)
	if alive {
		o.env.progress().Line(node, "its agent is still running; stop it there:  systemctl disable --now ainode-agent")
	}
	return nil
}
