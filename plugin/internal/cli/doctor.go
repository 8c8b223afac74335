package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/plugin/internal/binding"
	"github.com/ainode/ainode/plugin/internal/doctor"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// outputShort is the one format of doctor that is neither a document nor prose.
const outputShort = "short"

type doctorOptions struct {
	env        *Env
	nodes      []string
	pre        bool
	to         string
	address    string
	ignore     []string
	expectGPUs int
	format     string
}

func newDoctor(env *Env) *cobra.Command {
	o := &doctorOptions{env: env}
	cmd := &cobra.Command{
		Use:   "doctor [NODE…] [--pre [--to CONFIG] [--address ADDRESS]]",
		Short: "See what is wrong with clusters and nodes, and how to mend it",
		Long: templates.LongDesc(`
			See what is wrong with hub, target, webhook and nodes, and how to mend it.

			√ is well, ‼ works and will surprise, × does not work. Each finding says why it matters and what to type next. What
			can't be read is a finding too, and stops nothing else. Nothing is changed: the one pod that is made, to see what the
			webhook does with it, is a dry run.

			With --pre it is asked what speaks against a binding; bind asks the same before it begins. On a machine itself there is
			"ainode-agent doctor".

			Exit code 2 says that there are findings, 1 that it could not be done.`),
		Example: templates.Examples(`
			# Look at everything
			kubectl ainode doctor

			# Look at one node, and leave out what is known
			kubectl ainode doctor ai-h200-01 --ignore daemonsets

			# See what speaks against a binding
			kubectl ainode doctor --pre ai-h200-01 --to prod

			# The same, of another address of the machine
			kubectl ainode doctor --pre ai-h200-01 --to prod --address 10.9.0.7

			# One line a finding
			kubectl ainode doctor -o short`),
		ValidArgsFunction: completeNodes(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := readAddress(cmd, &o.address); err != nil {
				return err
			}
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
	flags.BoolVar(&o.pre, "pre", o.pre, "Ask what speaks against a binding of the nodes; without names, of all that are not bound.")
	flags.StringVar(&o.to, "to", o.to, "With --pre, the config to bind to; needed unless one config alone is of the target.")
	flags.StringVar(&o.address, "address", o.address, "With --pre, which of the machine's addresses is to be chosen, as with bind.")
	flags.StringSliceVar(&o.ignore, "ignore", o.ignore, "Ids of checks that are left out. Can be repeated.")
	flags.IntVar(&o.expectGPUs, "expect-gpus", o.expectGPUs, "How many GPUs each machine must have.")
	flags.StringVarP(&o.format, "output", "o", o.format, "Output format. One of: (json, yaml, short).")
	_ = cmd.RegisterFlagCompletionFunc("to", completeConfigs(env))
	_ = cmd.RegisterFlagCompletionFunc("address", completeAddresses(env))
	_ = cmd.RegisterFlagCompletionFunc("ignore", cobra.FixedCompletions(doctor.IDs(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(append(slices.Clone(output.Formats), outputShort), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *doctorOptions) complete(args []string) (err error) {
	if len(args) > 0 {
		if o.nodes, err = nodeNames("doctor", args); err != nil {
			return err
		}
	}
	if o.to != "" {
		o.to, err = configName("doctor", []string{o.to})
	}
	return err
}

func (o *doctorOptions) validate() error {
	switch {
	case o.to != "" && !o.pre:
		return usageError("doctor", "--to goes with --pre")
	case o.address != "" && !o.pre:
		return usageError("doctor", "--address goes with --pre")
	case o.address != "" && len(o.nodes) != 1:
		return usageError("doctor", "--address is one machine's: name one node")
	case o.expectGPUs < 0:
		return usageError("doctor", "--expect-gpus is not negative")
	}
	if err := knownChecks("doctor", "--ignore", o.ignore, doctor.IDs()); err != nil {
		return err
	}
	if o.format == outputShort {
		return nil
	}
	if err := output.ValidateFormat(o.format); err != nil {
		return fmt.Errorf("%w, %s", err, outputShort)
	}
	return nil
}

// knownChecks refuses an id that no check has: a typo must not pass for care.
func knownChecks(verb, flag string, ids, known []string) error {
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return usageError(verb, "%s: there is no check %q; there are %s", flag, id, strings.Join(known, ", "))
		}
	}
	return nil
}

func (o *doctorOptions) run(ctx context.Context) error {
	walk, err := newWalk(o.env, 0)
	if err != nil {
		return err
	}
	c := &doctor.Case{
		Hub: walk.Hub, Target: walk.Target, Clock: o.env.Clock, Version: o.env.Version,
		Names: o.nodes, Before: o.pre, Address: o.address, ExpectGPUs: o.expectGPUs, Ignore: o.ignore,
	}
	if o.pre {
		if err := o.before(ctx, walk, c); err != nil {
			return err
		}
	}
	findings, err := c.Examine(ctx)
	if err != nil {
		return err
	}
	if err := o.print(findings); err != nil {
		return err
	}
	text, bad := diagnosis.Sum(findings)
	fmt.Fprintln(o.env.ErrOut, text)
	if bad {
		return errFindings
	}
	return nil
}

// before lets bind itself say what it would refuse.
func (o *doctorOptions) before(ctx context.Context, walk *binding.Walk, c *doctor.Case) error {
	if o.to == "" {
		var err error
		if o.to, err = onlyConfig(ctx, walk); err != nil {
			return err
		}
	}
	c.Plan = func(ctx context.Context, node string) error {
		_, err := walk.Check(ctx, binding.Request{Node: node, Config: o.to, Address: o.address})
		return err
	}
	if len(o.nodes) == 0 {
		return nil // rights are on nodes that are named
	}
	c.Rights = func(ctx context.Context) error {
		return mayAll(ctx, "bind AI nodes", walk, o.nodes, func(node string) (hub, target []preflight.Right) {
			return binding.BindRights(node, o.to, false)
		})
	}
	return nil
}

// onlyConfig is the config of the target, if there is one alone.
func onlyConfig(ctx context.Context, walk *binding.Walk) (string, error) {
	list, err := walk.Hub.ClusterConfigs(ctx)
	if err != nil {
		return "", fmt.Errorf("list configs: %w", err)
	}
	uid, err := walk.Target.UID(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, c := range list.Items {
		if c.Spec.ClusterUID == uid {
			names = append(names, c.Name)
		}
	}
	if len(names) != 1 {
		return "", usageError("doctor", "--pre needs --to CONFIG: %d configs are of the cluster that your kubeconfig names", len(names))
	}
	return names[0], nil
}

func (o *doctorOptions) print(findings []diagnosis.Finding) error {
	switch o.format {
	case "":
		return diagnosis.Write(o.env.Out, findings, o.env.Color)
	case outputShort:
		return output.Aligned(o.env.Out, doctor.Short(findings))
	default:
		return output.Document(o.env.Out, o.format, diagnosis.NewList(findings))
	}
}
