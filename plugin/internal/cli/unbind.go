package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type unbindOptions struct {
	env     *Env
	nodes   []string
	force   bool
	timeout time.Duration
	pods    binding.UnbindOptions
}

func newUnbind(env *Env) *cobra.Command {
	o := &unbindOptions{env: env, timeout: 5 * time.Minute, pods: binding.UnbindOptions{GracePeriodSeconds: -1}}
	cmd := &cobra.Command{
		Use:   "unbind NODE…",
		Short: "Send the pods away and give machines back to the pool",
		Long: templates.LongDesc(`
			Send the pods away and give machines back to the pool.

			The node is cordoned and drained by eviction, which honours PodDisruptionBudgets. The machine then stops whatever is left,
			wipes its credential and reports back; after that the node and its identity are removed from the cluster.

			An unbinding that was interrupted or timed out is gone on with by typing the same command. As long as the node is being
			drained it can be called off:  kubectl ainode bind NODE --to CONFIG`),
		Example: templates.Examples(`
			# Give a machine back
			kubectl ainode unbind ai-h200-01

			# Do not ask PodDisruptionBudgets
			kubectl ainode unbind ai-h200-01 --disable-eviction

			# The machine is gone for good
			kubectl ainode unbind ai-h200-01 --force`),
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
	flags := cmd.Flags()
	flags.BoolVar(&o.force, "force", o.force, "End the binding of a machine that is gone. Refused while its agent gives a sign of life.")
	flags.BoolVar(&o.pods.DisableEviction, "disable-eviction", o.pods.DisableEviction, "Delete pods rather than evicting them: PodDisruptionBudgets are not asked.")
	flags.IntVar(&o.pods.GracePeriodSeconds, "grace-period", o.pods.GracePeriodSeconds, "Seconds that each pod has to end; negative leaves it to the pod.")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "How long to wait for each node; 0 waits for ever.")
	return cmd
}

func (o *unbindOptions) complete(args []string) error {
	for _, n := range args {
		if !slices.Contains(o.nodes, n) {
			o.nodes = append(o.nodes, n)
		}
	}
	return nil
}

func (o *unbindOptions) validate() error {
	switch {
	case len(o.nodes) == 0:
		return usageError("unbind", "the name of an AI node is needed (see: kubectl ainode list)")
	case o.timeout < 0:
		return usageError("unbind", "--timeout is not negative")
	case o.force && o.pods.DisableEviction:
		return usageError("unbind", "--force evicts nothing: leave --disable-eviction out")
	}
	return nil
}

func (o *unbindOptions) run(ctx context.Context) error {
	walk, err := newWalk(o.env, o.timeout)
	if err != nil {
		return err
	}
	leaving := make([]*binding.Leaving, len(o.nodes))
	errs := make([]error, len(o.nodes))
	var open []string
	for i, node := range o.nodes {
		if leaving[i], errs[i] = walk.CheckLeaving(ctx, node); errs[i] == nil && !leaving[i].Done {
			open = append(open, node)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(open) > 0 {
		if err := mayAll(ctx, "unbind AI nodes", walk, open, func(node string) (hub, target []preflight.Right) {
			hub, target = binding.UnbindRights(node, leaving[slices.Index(o.nodes, node)].Config)
			if o.force {
				hub = append(hub, preflight.Right{Verb: "update", Group: contract.Group, Resource: "ainodes", Subresource: "status", Name: node})
			}
			return hub, target
		}); err != nil {
			return err
		}
	}
	check := walk.CheckUnbind
	if o.force {
		check = walk.CheckForce
	}
	if err := each(o.nodes, func(i int) error {
		if leaving[i].Done {
			return nil
		}
		return check(ctx, leaving[i])
	}); err != nil {
		return err
	}
	return each(o.nodes, func(i int) error { return o.unbind(ctx, walk, leaving[i]) })
}

func (o *unbindOptions) unbind(ctx context.Context, walk *binding.Walk, l *binding.Leaving) error {
	if l.Done {
		fmt.Fprintf(o.env.Out, "node/%s unchanged (not bound)\n", l.Node)
		return nil
	}
	began := o.env.Clock.Now()
	do := func() error { return walk.Unbind(ctx, l, o.pods) }
	if o.force {
		do = func() error { return walk.Force(ctx, l) }
	}
	if err := do(); err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "node/%s unbound (%s)\n", l.Node, seconds(o.env.Clock.Since(began)))
	return nil
}
