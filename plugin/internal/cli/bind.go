package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/doctor"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// Values of --lb-mode.
const (
	lbENI     = "eni"
	lbExclude = "exclude"
	// excludeNodeLabel is what the cloud controller of Alibaba Cloud reads.
	excludeNodeLabel = "service.alibabacloud.com/exclude-node"
)

type bindOptions struct {
	env        *Env
	nodes      []string
	to         string
	lbMode     string
	expectKey  string
	podCIDR    string
	pods       podrange.Range
	address    string
	until      string
	drainGrace string
	term       *binding.Term
	keepGrace  bool      // --drain-grace was not given
	asked      time.Time // what a span of --until counts from
	expectGPUs int
	ignore     []string
	wait       bool
	timeout    time.Duration
	dryRun     dryRun
	// again is the command that leaves these checks out too.
	again func(checks []string) string
}

func newBind(env *Env) *cobra.Command {
	o := &bindOptions{env: env, lbMode: lbENI, wait: true, timeout: 2 * time.Minute, drainGrace: "30m"}
	cmd := &cobra.Command{
		Use:   "bind NODE… --to CONFIG",
		Short: "Make machines nodes of an imported cluster",
		Long: templates.LongDesc(`
			Make machines nodes of an imported cluster.

			Everything that speaks against it is looked at first, and nothing is changed if something does. The machine then gets
			an identity of its own on the target, which may act as that one node only, sealed so that only this machine can read it.

			A binding that was interrupted is gone on with by typing the same command. It acts with your rights on both clusters:
			cluster-admin, or ClusterRole "ainode-binder".`),
		Example: templates.Examples(`
			# Bind a machine and wait until it serves
			kubectl ainode bind ai-h200-01 --to prod

			# Only if the machine is the one whose key you have seen there
			kubectl ainode bind ai-h200-01 --to prod --expect-key SHA256:…

			# Each pod gets an address of its own, from a range routed to the machine
			kubectl ainode bind ai-h200-01 --to prod --pod-cidr 10.64.3.0/24

			# Reached at another of its addresses, which "describe" shows
			kubectl ainode bind ai-h200-01 --to prod --address 10.9.0.7

			# Until eight in the morning; pods are sent away from half past seven on
			kubectl ainode bind ai-h200-01 --to prod --until 08:00 --drain-grace 30m

			# Longer, with the grace that it has, or for good
			kubectl ainode bind ai-h200-01 --to prod --until 12:00
			kubectl ainode bind ai-h200-01 --to prod --until none

			# Only if the machine has all its cards, and without one check
			kubectl ainode bind ai-h200-01 --to prod --expect-gpus 8 --ignore-preflight=daemonsets

			# See what speaks against it, change nothing
			kubectl ainode bind ai-h200-01 ai-h200-02 --to prod --dry-run=client`),
		ValidArgsFunction: completeNodes(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			// First: of a date and a time without quotes, the time is taken for a node.
			if err := o.completeTerm(cmd.Flags().Changed("until"), cmd.Flags().Changed("drain-grace")); err != nil {
				return err
			}
			if err := readAddress(cmd, &o.address); err != nil {
				return err
			}
			if err := o.complete(args); err != nil {
				return err
			}
			o.again = func(checks []string) string { return retyped(cmd, o.nodes, "ignore-preflight", checks) }
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.to, "to", o.to, "The config (see: kubectl ainode configs) of the cluster to bind to.")
	flags.StringVar(&o.lbMode, "lb-mode", o.lbMode, `How load balancers of the cloud treat the node: "eni" (its pods have the node's routable address) or "exclude" (keep off).`)
	flags.StringVar(&o.expectKey, "expect-key", o.expectKey, "Fingerprint that the machine's key must have, as ainode-agent join printed it.")
	flags.StringVar(&o.podCIDR, "pod-cidr", o.podCIDR, "Range that each pod gets an address of its own from. The cluster's network must route it to the machine. Without one, pods share the machine's address.")
	flags.StringVar(&o.address, "address", o.address, "Which of the machine's addresses the cluster reaches it by: its node's, and that of pods which have none of their own. Without one, its agent chooses.")
	flags.StringVar(&o.until, "until", o.until, `When the machine is free again: a time of day (08:00), a point in time (2026-11-27T08:00, or RFC 3339 with a zone), a span (30m, 8h, 2d), or "none". The agent lets go by itself then. Of a bound node it changes the end, "none" takes it away.`)
	flags.StringVar(&o.drainGrace, "drain-grace", o.drainGrace, "How long before --until no new pods come and those there are evicted (90s, 30m, 1d). What PodDisruptionBudgets do not let go is ended by the node, in its own grace period, so that it is over at --until. 0s evicts nothing: pods are ended at --until. A node that has an end keeps its own grace unless this is given.")
	flags.IntVar(&o.expectGPUs, "expect-gpus", o.expectGPUs, "How many GPUs each machine must have.")
	flags.StringSliceVar(&o.ignore, "ignore-preflight", o.ignore, "Ids of checks (see: kubectl ainode doctor --pre) that are left out. Can be repeated.")
	flags.BoolVar(&o.wait, "wait", o.wait, "Wait until the node serves.")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "How long to wait for each node; 0 waits for ever.")
	o.dryRun.addFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("to", completeConfigs(env))
	_ = cmd.RegisterFlagCompletionFunc("address", completeAddresses(env))
	_ = cmd.RegisterFlagCompletionFunc("ignore-preflight", cobra.FixedCompletions(doctor.PreflightIDs(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("lb-mode", cobra.FixedCompletions([]string{lbENI, lbExclude}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *bindOptions) complete(args []string) (err error) {
	if o.nodes, err = nodeNames("bind", args); err != nil {
		return err
	}
	if o.to == "" {
		return usageError("bind", "--to CONFIG is needed (see: kubectl ainode configs)")
	}
	o.to, err = configName("bind", []string{o.to})
	return err
}

func (o *bindOptions) validate() error {
	switch {
	case o.lbMode != lbENI && o.lbMode != lbExclude:
		return usageError("bind", "--lb-mode is %q or %q, not %q", lbENI, lbExclude, o.lbMode)
	case o.expectKey != "" && len(o.nodes) > 1:
		return usageError("bind", "--expect-key is one machine's: bind one node at a time")
	case o.expectKey != "" && !strings.HasPrefix(o.expectKey, "SHA256:"):
		return usageError("bind", "--expect-key begins with SHA256:")
	case o.podCIDR != "" && len(o.nodes) > 1:
		return usageError("bind", "--pod-cidr is one machine's: bind one node at a time")
	case o.address != "" && len(o.nodes) > 1:
		return usageError("bind", "--address is one machine's: bind one node at a time")
	case o.expectGPUs < 0:
		return usageError("bind", "--expect-gpus is not negative")
	case o.timeout < 0:
		return usageError("bind", "--timeout is not negative")
	}
	if err := o.dryRun.validate("bind"); err != nil {
		return err
	}
	if o.podCIDR != "" {
		var err error
		if o.pods, err = podrange.Parse(o.podCIDR); err != nil {
			return usageError("bind", "--pod-cidr: %v", err)
		}
	}
	return knownChecks("bind", "--ignore-preflight", o.ignore, doctor.PreflightIDs())
}

// readAddress reads --address, and has it as the machine writes it.
func readAddress(cmd *cobra.Command, address *string) error {
	if !cmd.Flags().Changed("address") {
		return nil
	}
	if *address == "" {
		return usageError(cmd.Name(), "--address is empty: leave it out, and its agent chooses")
	}
	addr, err := netip.ParseAddr(*address)
	if err != nil || addr.Zone() != "" {
		return usageError(cmd.Name(), "--address: %q is no IP address", *address)
	}
	*address = addr.Unmap().String()
	return nil
}

func (o *bindOptions) labels() map[string]string {
	if o.lbMode == lbExclude {
		return map[string]string{corev1.LabelNodeExcludeBalancers: "true", excludeNodeLabel: "true"}
	}
	return nil
}

func (o *bindOptions) run(ctx context.Context) error {
	walk, err := newWalk(o.env, o.timeout)
	if err != nil {
		return err
	}
	walk.DryRun = o.dryRun.server()
	if err := mayAll(ctx, "bind AI nodes", walk, o.nodes, func(node string) (hub, target []preflight.Right) {
		return binding.BindRights(node, o.to, !o.pods.IsZero())
	}); err != nil {
		return err
	}
	// All nodes are judged before the first is touched.
	plans := make([]*binding.Plan, len(o.nodes))
	errs := make([]error, len(o.nodes))
	for i, node := range o.nodes {
		plans[i], errs[i] = walk.Check(ctx, binding.Request{Node: node, Config: o.to, Labels: o.labels(), Pods: o.pods, Address: o.address, Term: o.term, KeepGrace: o.keepGrace, Fingerprint: o.expectKey})
		if errs[i] == nil {
			errs[i] = o.checkTerm(plans[i])
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := o.preflight(ctx, walk, plans); err != nil {
		return err
	}
	return each(ctx, o.nodes, func(i int) error { return o.bind(ctx, walk, plans[i]) })
}

// preflight asks what else speaks against it, of the nodes that are not served yet.
func (o *bindOptions) preflight(ctx context.Context, walk *binding.Walk, plans []*binding.Plan) error {
	var open []string
	for _, p := range plans {
		if !p.Done {
			open = append(open, p.Node)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return doctor.Case{
		Hub: walk.Hub, Target: walk.Target, Clock: o.env.Clock, Version: o.env.Version,
		Names: open, Address: o.address, ExpectGPUs: o.expectGPUs, Excluded: o.lbMode == lbExclude, Ignore: o.ignore, Again: o.again,
	}.Preflight(ctx, func(node, text string) { walk.Progress.Warn(node, "%s", text) }, func(node, text string) { walk.Progress.Line(node, "%s", text) })
}

func (o *bindOptions) bind(ctx context.Context, walk *binding.Walk, p *binding.Plan) error {
	if p.Done && p.Retimed {
		return o.retime(ctx, walk, p)
	}
	if p.Done {
		fmt.Fprintf(o.env.Out, "node/%s unchanged (bound to %s)\n", p.Node, o.to)
		return nil
	}
	o.tellTerm(ctx, walk, p)
	walk.Progress.Line(p.Node, "key %s", p.Key.Fingerprint())
	if p.Address != "" {
		walk.Progress.Line(p.Node, "is reached at %s", p.Address)
	}
	if !p.Pods.IsZero() {
		walk.Progress.Line(p.Node, "pods get addresses of %s, which has room for %d", p.Pods, p.Pods.Pods())
	}
	if o.dryRun.client() {
		walk.ForeseeBind(p)
		o.dryRun.announce(o.env, "node/%s bound", p.Node)
		return nil
	}
	began := o.env.Clock.Now()
	epoch, err := walk.Bind(ctx, p)
	if err != nil {
		return err
	}
	switch {
	case o.dryRun.server():
		o.dryRun.announce(o.env, "node/%s bound", p.Node)
		return nil
	case !o.wait:
		fmt.Fprintf(o.env.Out, "node/%s binding\n", p.Node)
		return nil
	}
	if err := walk.Wait(ctx, p, epoch); err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "node/%s bound (%s)\n", p.Node, seconds(o.env.Clock.Since(began)))
	return nil
}

// newWalk finds both clusters.
func newWalk(env *Env, timeout time.Duration) (*binding.Walk, error) {
	hub, err := env.Clusters.Hub()
	if err != nil {
		return nil, err
	}
	target, err := env.Clusters.Target()
	if err != nil {
		return nil, err
	}
	return &binding.Walk{Hub: hub, Target: target, Progress: env.progress(), Clock: env.Clock, Timeout: timeout}, nil
}

// mayAll asks for the rights on every node, on both clusters, at once.
func mayAll(ctx context.Context, doing string, walk *binding.Walk, nodes []string, rights func(node string) (hub, target []preflight.Right)) error {
	hub, target := preflight.Needs{Cluster: walk.Hub}, preflight.Needs{Cluster: walk.Target}
	for _, node := range nodes {
		h, t := rights(node)
		hub.Rights, target.Rights = append(hub.Rights, h...), append(target.Rights, t...)
	}
	return preflight.Binder.Check(ctx, doing, hub, target)
}

// each does something for all nodes, a few at a time, and returns their errors in
// the nodes' order. After an interruption no other node is begun with.
func each(ctx context.Context, nodes []string, do func(i int) error) error {
	errs := make([]error, len(nodes))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range nodes {
		slots <- struct{}{}
		if errs[i] = ctx.Err(); errs[i] != nil {
			<-slots
			continue
		}
		wg.Go(func() {
			errs[i] = do(i)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func seconds(d time.Duration) string { return d.Round(time.Second).String() }
