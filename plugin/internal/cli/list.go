package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/kubectl/pkg/util/templates"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/configs"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type listOptions struct {
	env   *Env
	print output.Flags
	watch bool
}

func newList(env *Env) *cobra.Command {
	o := &listOptions{env: env, print: output.NewFlags()}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the AI nodes",
		Long: templates.LongDesc(`
			List the AI nodes of the pool, bound or not.

			STATUS is NotJoined (no machine yet), Unbound, Binding, Bound, Draining, Unbinding, CredentialInvalid (bound, and the
			cluster refuses its credential: renew it), Lost (the machine's agent gives no sign of life), or Forced (unbound with
			--force, and its machine has not come back: what it ran may run on). USED counts the cards given to pods whose processes live.`),
		Example: templates.Examples(`
			# List all AI nodes
			kubectl ainode list

			# When each binding ends, versions, epochs and machines too
			kubectl ainode list -o wide

			# Watch them while binding
			kubectl ainode list -w

			# The names of those that are free
			kubectl ainode list -o jsonpath='{.items[?(@.status.bindStatus=="Unbound")].metadata.name}'`),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.print.Validate(); err != nil {
				return flagError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.print.AddFlags(cmd)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", o.watch, "After listing, watch for changes of the records.")
	return cmd
}

func (o *listOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	list, err := hub.AINodes(ctx)
	if err != nil {
		return preflight.Viewer.Explain(ctx, fmt.Errorf("list AI nodes: %w", err), "list AI nodes", preflight.Needs{Cluster: hub, Rights: nodes.ListRights()})
	}
	if len(list.Items) == 0 && o.print.IsTable() {
		fmt.Fprintln(o.env.ErrOut, "There are no AI nodes. Add one:  kubectl ainode add ai-NAME")
	} else if err := o.show(ctx, hub, list); err != nil {
		return err
	}
	if !o.watch {
		return nil
	}
	return o.follow(ctx, hub, list.ResourceVersion)
}

func (o *listOptions) show(ctx context.Context, hub *kube.Cluster, list *v1alpha1.AINodeList) error {
	if !o.print.IsTable() {
		return o.print.Print(o.env.Out, list, nil)
	}
	signs, err := nodes.Signs(ctx, hub)
	switch {
	case apierrors.IsForbidden(err):
		o.env.progress().Warn("", "lost nodes can't be told: you may not list leases.coordination.k8s.io in namespace %s, Role %q there grants it", contract.SystemNamespace, preflight.Viewer.Name)
	case err != nil:
		o.env.progress().Warn("", "lost nodes can't be told: %v", err)
	}
	err = o.print.Print(o.env.Out, list, func() *metav1.Table { return nodes.Table(list.Items, signs, o.env.Clock.Now()) })
	// A column more would not fit.
	if next := nodes.NextEnd(list.Items, o.env.Clock.Now()); err == nil && next != "" && !o.print.Wide() {
		fmt.Fprintln(o.env.ErrOut, next)
	}
	if all, unread := hub.ClusterConfigs(ctx); err == nil && unread == nil { // who may not read them is shown the nodes all the same
		for _, text := range configs.Lingering(all.Items, list.Items) {
			fmt.Fprintln(o.env.ErrOut, text)
		}
	}
	return err
}

// follow prints each changed record. A record that its agent changes is not lost.
func (o *listOptions) follow(ctx context.Context, hub *kube.Cluster, from string) error {
	*o.print.NoHeaders = true
	for {
		events, err := hub.Records.Watch(ctx, &v1alpha1.AINodeList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: from}})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch AI nodes: %w", kube.Explain(err))
		}
		from, err = o.drainEvents(ctx, events, from)
		events.Stop()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

func (o *listOptions) drainEvents(ctx context.Context, events watch.Interface, from string) (string, error) {
	for {
		select {
		case <-ctx.Done():
			return from, nil
		case event, open := <-events.ResultChan():
			switch {
			case !open:
				return from, nil // a watch ends after a while: the next goes on there
			case event.Type == watch.Error:
				return "", nil // too long ago: all once more
			}
			record, ok := event.Object.(*v1alpha1.AINode)
			if !ok || event.Type == watch.Deleted {
				continue
			}
			from = record.ResourceVersion
			record.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("AINode"))
			if err := o.print.Print(o.env.Out, record, func() *metav1.Table {
				return nodes.Table([]v1alpha1.AINode{*record}, nil, o.env.Clock.Now())
			}); err != nil {
				return from, err
			}
		}
	}
}
