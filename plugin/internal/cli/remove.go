package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/bootstrap"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type removeOptions struct {
	env            *Env
	nodes          []string
	ignoreNotFound bool
	dryRun         dryRun
}

func newRemove(env *Env) *cobra.Command {
	o := &removeOptions{env: env}
	cmd := &cobra.Command{
		Use:   "remove NAME…",
		Short: "Take unbound machines out of the pool",
		Long: templates.LongDesc(`
			Take unbound machines out of the pool.

			The record and the account of the machine's agent go. A node that is bound is not removed: unbind it first. A name
			that is not there is an error, as with kubectl delete, and then no other is removed either.`),
		Example: templates.Examples(`
			# Take a machine out of the pool
			kubectl ainode remove ai-h200-01

			# One that is still bound
			kubectl ainode unbind ai-h200-01 && kubectl ainode remove ai-h200-01

			# In a script that may run twice
			kubectl ainode remove ai-h200-01 --ignore-not-found`),
		ValidArgsFunction: completeNodes(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.dryRun.validate("remove"); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.ignoreNotFound, "ignore-not-found", o.ignoreNotFound, ignoreNotFoundUsage)
	o.dryRun.addFlag(cmd)
	return cmd
}

// ignoreNotFoundUsage is kubectl delete's flag here.
const ignoreNotFoundUsage = `A name that is not there is no error: it prints "unchanged".`

func (o *removeOptions) complete(args []string) (err error) {
	o.nodes, err = nodeNames("remove", args)
	return err
}

func (o *removeOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	var rights []preflight.Right
	for _, node := range o.nodes {
		rights = append(rights, bootstrap.RemoveRights(node)...)
	}
	if err := preflight.Binder.Check(ctx, "remove AI nodes", preflight.Needs{Cluster: hub, Rights: rights}); err != nil {
		return err
	}
	// All nodes are judged before the first is touched.
	records := make([]*v1alpha1.AINode, len(o.nodes))
	errs := make([]error, len(o.nodes))
	for i, node := range o.nodes {
		records[i], errs[i] = bootstrap.Removable(ctx, hub, node)
		if errs[i] == nil && records[i] == nil && !o.ignoreNotFound {
			errs[i] = nodes.Unknown(ctx, hub, node)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, node := range o.nodes {
		errs[i] = o.remove(ctx, hub, node, records[i])
	}
	return errors.Join(errs...)
}

func (o *removeOptions) remove(ctx context.Context, hub *kube.Cluster, node string, record *v1alpha1.AINode) error {
	if record == nil {
		fmt.Fprintf(o.env.Out, "ainode/%s unchanged (there is no such AI node)\n", node)
		return nil
	}
	alive := false
	if signs, err := nodes.Signs(ctx, hub); err == nil {
		alive = !signs[node].Seen.IsZero() && signs[node].Alive(o.env.Clock.Now())
	}
	if !o.dryRun.client() {
		if err := bootstrap.Remove(ctx, hub, record, o.dryRun.options()...); err != nil {
			return err
		}
	}
	o.dryRun.announce(o.env, "ainode/%s removed", node)
	if alive && o.dryRun == dryRunNone {
		o.env.progress().Line(node, "its agent is still running; stop it there:  systemctl disable --now ainode-agent")
	}
	return nil
}
