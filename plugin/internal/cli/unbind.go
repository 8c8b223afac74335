package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type unbindOptions struct {
	env     *Env
	nodes   []string
	timeout time.Duration
	how     binding.UnbindOptions
	wait    bool
	dryRun  dryRun
}

func newUnbind(env *Env) *cobra.Command {
	o := &unbindOptions{env: env, wait: true, timeout: 5 * time.Minute, how: binding.UnbindOptions{GracePeriodSeconds: -1}}
	cmd := &cobra.Command{
		Use:   "unbind NODE…",
		Short: "Send the pods away and give machines back to the pool",
		Long: templates.LongDesc(`
			Send the pods away and give machines back to the pool.

			The node is cordoned and drained by eviction, which honours PodDisruptionBudgets; one that holds a pod up is named. The
			machine then stops whatever is left, wipes its credential and reports back; after that the node and its identity are
			removed from the cluster.

			An unbinding that was interrupted or timed out is gone on with by typing the same command. As long as the node is being
			drained it can be called off:  kubectl ainode bind NODE --to CONFIG`),
		Example: templates.Examples(`
			# Give a machine back
			kubectl ainode unbind ai-h200-01

			# See which pods would go, and whether their disruption budgets let them
			kubectl ainode unbind ai-h200-01 --dry-run=server

			# Do not ask PodDisruptionBudgets
			kubectl ainode unbind ai-h200-01 --disable-eviction

			# The machine is gone for good
			kubectl ainode unbind ai-h200-01 --force

			# The cluster is gone for good, the machine is not
			kubectl ainode unbind ai-h200-01 --cluster-gone`),
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
	flags.BoolVar(&o.how.MachineGone, "force", o.how.MachineGone, "End the binding of a machine that is gone. Refused while its agent gives a sign of life. Should it be cut off only, its pods run on there while others are started in their place.")
	flags.BoolVar(&o.how.ClusterGone, "cluster-gone", o.how.ClusterGone, "End the binding to a cluster that is gone: nothing is asked of it. Should it be out of reach only, the node and its account stay behind there.")
	flags.BoolVar(&o.how.DisableEviction, "disable-eviction", o.how.DisableEviction, "Delete pods rather than evicting them: PodDisruptionBudgets are not asked.")
	flags.IntVar(&o.how.GracePeriodSeconds, "grace-period", o.how.GracePeriodSeconds, "Seconds that each pod has to end; negative leaves it to the pod.")
	flags.BoolVar(&o.wait, "wait", o.wait, "Wait until the machine has let go, and remove the node then. Without, the pods are sent away and the machine is told; the same command finishes it later.")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "How long to wait for each node; 0 waits for ever.")
	o.dryRun.addFlag(cmd)
	return cmd
}

func (o *unbindOptions) complete(args []string) (err error) {
	o.nodes, err = nodeNames("unbind", args)
	o.how.NoWait = !o.wait
	return err
}

func (o *unbindOptions) validate() error {
	switch pods := o.how.DisableEviction || o.how.GracePeriodSeconds >= 0; {
	case o.timeout < 0:
		return usageError("unbind", "--timeout is not negative")
	case !o.wait && (o.how.MachineGone || o.how.ClusterGone):
		return usageError("unbind", "--wait=false waits for no machine: there is none to wait for with --force, and nothing to finish with --cluster-gone")
	case o.how.MachineGone && pods:
		return usageError("unbind", "--force evicts nothing: leave --disable-eviction and --grace-period out")
	case o.how.ClusterGone && pods:
		return usageError("unbind", "--cluster-gone evicts nothing: leave --disable-eviction and --grace-period out")
	}
	return o.dryRun.validate("unbind")
}

func (o *unbindOptions) run(ctx context.Context) error {
	walk, err := newWalk(o.env, o.timeout)
	if err != nil {
		return err
	}
	walk.DryRun = o.dryRun.server()
	leaving := make([]*binding.Leaving, len(o.nodes))
	errs := make([]error, len(o.nodes))
	for i, node := range o.nodes {
		leaving[i], errs[i] = walk.CheckLeaving(ctx, node, o.how)
	}
	if slices.ContainsFunc(errs, apierrors.IsForbidden) {
		if err := o.may(ctx, walk, o.nodes, func(string) string { return "" }); err != nil {
			return err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// All nodes are judged before the first is touched.
	var open []*binding.Leaving
	var names []string
	for _, l := range leaving {
		if l.Done {
			fmt.Fprintf(o.env.Out, "node/%s unchanged (not bound)\n", l.Node)
			continue
		}
		open, names = append(open, l), append(names, l.Node)
	}
	if len(open) == 0 {
		return nil
	}
	all := func(do func(context.Context, *binding.Leaving) error) error {
		return each(ctx, names, func(i int) error { return do(ctx, open[i]) })
	}
	if err := all(walk.CheckReach); err != nil {
		return err
	}
	config := func(node string) string { return open[slices.Index(names, node)].Config }
	if err := o.may(ctx, walk, names, config); err != nil {
		return err
	}
	if err := all(walk.CheckMachine); err != nil {
		return err
	}
	return all(func(ctx context.Context, l *binding.Leaving) error { return o.unbind(ctx, walk, l) })
}

// may asks for the rights on all nodes at once.
func (o *unbindOptions) may(ctx context.Context, walk *binding.Walk, nodes []string, config func(node string) string) error {
	return mayAll(ctx, "unbind AI nodes", walk, nodes, func(node string) (hub, target []preflight.Right) {
		hub, target = binding.UnbindRights(node, config(node))
		if o.how.MachineGone {
			hub = append(hub, binding.ForceRights(node)...)
		}
		if o.how.ClusterGone {
			target = nil
		}
		return hub, target
	})
}

func (o *unbindOptions) unbind(ctx context.Context, walk *binding.Walk, l *binding.Leaving) error {
	if o.dryRun != dryRunNone {
		if err := walk.Foresee(ctx, l); err != nil {
			return err
		}
		o.dryRun.announce(o.env, "node/%s unbound", l.Node)
		return nil
	}
	began := o.env.Clock.Now()
	if err := walk.Leave(ctx, l); err != nil {
		return err
	}
	if !o.wait {
		fmt.Fprintf(o.env.Out, "node/%s unbinding\n", l.Node)
		walk.Progress.Line(l.Node, "when its machine has let go, finish with:  kubectl ainode unbind %s", l.Node)
		return nil
	}
	fmt.Fprintf(o.env.Out, "node/%s unbound (%s)\n", l.Node, seconds(o.env.Clock.Since(began)))
	return nil
}
