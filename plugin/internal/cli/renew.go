package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type renewOptions struct {
	env       *Env
	nodes     []string
	expectKey string
	wait      bool
	timeout   time.Duration
	dryRun    dryRun
}

func newRenew(env *Env) *cobra.Command {
	o := &renewOptions{env: env, wait: true, timeout: 2 * time.Minute}
	cmd := &cobra.Command{
		Use:   "renew NODE…",
		Short: "Give bound machines a new credential while their pods run on",
		Long: templates.LongDesc(`
			Give bound machines a new credential while their pods run on.

			For a node that is CredentialInvalid: its agent slept for days, its account was deleted, or the cluster's keys were
			rotated. And for one whose credential may have been stolen: a credential that is good is replaced too, each time. The
			machine gets a new account on the target; once it acts with that, the accounts before it are removed, and with them
			their tokens die. Open kubectl exec and logs sessions end with the change.

			A renewal that was interrupted is gone on with by typing the same command. It acts with your rights on both clusters:
			cluster-admin, or ClusterRole "ainode-binder".`),
		Example: templates.Examples(`
			# Replace a dead credential, or one that may be in other hands
			kubectl ainode renew ai-h200-01

			# Only if the machine is the one whose key you have seen there
			kubectl ainode renew ai-h200-01 --expect-key SHA256:…

			# See what speaks against it, change nothing
			kubectl ainode renew ai-h200-01 --dry-run=server`),
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
	flags.StringVar(&o.expectKey, "expect-key", o.expectKey, "Renew only if the machine has the key with this fingerprint (ainode-agent join prints it).")
	flags.BoolVar(&o.wait, "wait", o.wait, "Wait until the node serves with the new credential, and remove the accounts before it. Without, the same command finishes it later.")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "How long to wait for each node; 0 waits for ever.")
	o.dryRun.addFlag(cmd)
	return cmd
}

func (o *renewOptions) complete(args []string) (err error) {
	o.nodes, err = nodeNames("renew", args)
	return err
}

func (o *renewOptions) validate() error {
	switch {
	case o.expectKey != "" && len(o.nodes) > 1:
		return usageError("renew", "--expect-key is one machine's: renew one node at a time")
	case o.expectKey != "" && !strings.HasPrefix(o.expectKey, "SHA256:"):
		return usageError("renew", "--expect-key begins with SHA256:")
	case o.timeout < 0:
		return usageError("renew", "--timeout is not negative")
	}
	return o.dryRun.validate("renew")
}

func (o *renewOptions) run(ctx context.Context) error {
	walk, err := newWalk(o.env, o.timeout)
	if err != nil {
		return err
	}
	walk.DryRun = o.dryRun.server()
	configs := make([]string, len(o.nodes))
	errs := make([]error, len(o.nodes))
	for i, node := range o.nodes {
		configs[i], errs[i] = walk.BoundTo(ctx, node)
	}
	if err := errors.Join(errs...); err != nil && !slices.ContainsFunc(errs, apierrors.IsForbidden) {
		return err
	}
	if err := mayAll(ctx, "renew AI nodes", walk, o.nodes, func(node string) (hub, target []preflight.Right) {
		return binding.RenewRights(node, configs[slices.Index(o.nodes, node)])
	}); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// All nodes are judged before the first is touched.
	plans := make([]*binding.Plan, len(o.nodes))
	for i, node := range o.nodes {
		plans[i], errs[i] = walk.CheckRenewal(ctx, binding.Request{Node: node, Config: configs[i], Fingerprint: o.expectKey})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return each(ctx, o.nodes, func(i int) error { return o.renew(ctx, walk, plans[i]) })
}

func (o *renewOptions) renew(ctx context.Context, walk *binding.Walk, p *binding.Plan) error {
	walk.Progress.Line(p.Node, "key %s", p.Key.Fingerprint())
	if o.dryRun.client() {
		o.dryRun.announce(o.env, "node/%s renewed", p.Node)
		return nil
	}
	began := o.env.Clock.Now()
	epoch, err := walk.Renew(ctx, p)
	if err != nil {
		return err
	}
	switch {
	case o.dryRun.server():
		o.dryRun.announce(o.env, "node/%s renewed", p.Node)
		return nil
	case !o.wait:
		fmt.Fprintf(o.env.Out, "node/%s renewing\n", p.Node)
		walk.Progress.Line(p.Node, "when its machine has taken over, remove the accounts before it with:  kubectl ainode renew %s", p.Node)
		return nil
	}
	if err := walk.Wait(ctx, p, epoch); err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "node/%s renewed (epoch %d, %s)\n", p.Node, epoch, seconds(o.env.Clock.Since(began)))
	return nil
}
