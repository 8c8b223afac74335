package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type describeOptions struct {
	env   *Env
	node  string
	print output.Flags
}

func newDescribe(env *Env) *cobra.Command {
	o := &describeOptions{env: env, print: output.NewFlags()}
	cmd := &cobra.Command{
		Use:   "describe NODE",
		Short: "Show all that is known of an AI node",
		Long: templates.LongDesc(`
			Show all that is known of an AI node: its record on the hub, and its node and pods on the target if it is bound.

			A part that can't be read says why; the others are shown all the same. With -o it is the record that is printed.`),
		Example: templates.Examples(`
			# Show a node
			kubectl ainode describe ai-h200-01

			# The cluster it is bound to is not the hub
			kubectl ainode describe ai-h200-01 --context prod --hub-context pool

			# Its cards, for a program
			kubectl ainode describe ai-h200-01 -o jsonpath='{.status.gpus[*].uuid}'`),
		ValidArgsFunction: completeNodes(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.print.Validate(); err != nil {
				return flagError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.print.AddFlags(cmd)
	return cmd
}

func (o *describeOptions) complete(args []string) error {
	names, err := nodeNames("describe", args)
	if err == nil && len(names) > 1 {
		err = usageError("describe", "one AI node at a time, %d given", len(names))
	}
	if err != nil {
		return err
	}
	o.node = names[0]
	return nil
}

func (o *describeOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	view := nodes.View{Now: o.env.Clock.Now()}
	view.Record, err = hub.AINode(ctx, o.node)
	if apierrors.IsNotFound(err) {
		return nodes.Unknown(ctx, hub, o.node)
	}
	if err != nil {
		return preflight.Viewer.Explain(ctx, fmt.Errorf("read AI node %q: %w", o.node, err), "describe AI nodes",
			preflight.Needs{Cluster: hub, Rights: nodes.DescribeRights(o.node)})
	}
	if !o.print.IsTable() {
		return o.print.Print(o.env.Out, view.Record, nil)
	}
	signs, err := nodes.Signs(ctx, hub)
	if view.SignErr = err; err == nil {
		view.Sign = nodes.Sign{Known: true}
		if s, ok := signs[o.node]; ok {
			view.Sign = s
		}
	}
	if config := view.Record.Spec.ClusterConfigName; config != "" {
		view.TargetErr = o.readTarget(ctx, config, &view)
	}
	return nodes.Describe(o.env.Out, view)
}

func (o *describeOptions) readTarget(ctx context.Context, name string, view *nodes.View) error {
	walk, err := newWalk(o.env, 0)
	if err != nil {
		return err
	}
	if err := walk.IsTarget(ctx, name); err != nil {
		return err
	}
	core := walk.Target.Core.CoreV1()
	node, err := core.Nodes().Get(ctx, o.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errors.New("it is not there")
	}
	if err != nil {
		return err
	}
	view.Node = node
	pods, err := core.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", o.node).String(),
	})
	if err != nil {
		return fmt.Errorf("list its pods: %w", err)
	}
	view.Pods = pods.Items
	return nil
}
