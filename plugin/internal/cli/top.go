package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/top"
)

type topOptions struct {
	env    *Env
	nodes  []string
	format string
	pods   bool
	watch  bool
	every  time.Duration
}

func newTop(env *Env) *cobra.Command {
	o := &topOptions{env: env, every: 5 * time.Second}
	cmd := &cobra.Command{
		Use:   "top [NODE...]",
		Short: "Show what the GPUs of bound AI nodes do",
		Long: templates.LongDesc(`
			Show what the GPUs of bound AI nodes do, as their agents measure it every ten seconds.

			UTIL is the share of time in which the GPU computed, ECC the double-bit errors since the driver was loaded, XID the last
			error since the agent started, IDLE for how long the GPU was not seen to compute. A GPU that is "out" is given to no
			pod until it has recovered. A GPU in MIG mode is followed by its slices, each with the id of its GPU instance and its
			profile; what only the whole GPU measures stands with the GPU. Figures of simulated GPUs are made up, and marked so.

			The nodes are read through the target's API server, for which you need to get nodes/proxy. A node that can't be read says
			why; the others are shown all the same.`),
		Example: templates.Examples(`
			# Show all cards
			kubectl ainode top

			# Show those of one node, again and again
			kubectl ainode top ai-h200-01 -w

			# Show what each pod uses
			kubectl ainode top --pods

			# The cards that nobody uses
			kubectl ainode top -o json | jq -r '.nodes[].cards[] | select(.pod == null and .slices == null).uuid'`),
		ValidArgsFunction: completeNodes(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&o.format, "output", "o", o.format, "Output format. One of: (json, yaml).")
	cmd.Flags().BoolVar(&o.pods, "pods", o.pods, "Show a line for each pod that has GPUs.")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", o.watch, "Show it again and again.")
	cmd.Flags().DurationVar(&o.every, "interval", o.every, "How often, with --watch.")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *topOptions) complete(args []string) error {
	if err := output.ValidateFormat(o.format); err != nil {
		return usageError("top", "%v", err)
	}
	if o.watch && o.format != "" {
		return usageError("top", "--watch is for people, -o %s for programs: give one of them", o.format)
	}
	if o.every < time.Second {
		return usageError("top", "--interval %s is too short: agents measure every 10s", o.every)
	}
	if len(args) == 0 {
		return nil
	}
	var err error
	o.nodes, err = nodeNames("top", args)
	return err
}

func (o *topOptions) run(ctx context.Context) error {
	target, err := o.env.Clusters.Target()
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		nodes, err := top.Gather(ctx, target, o.nodes)
		switch {
		case ctx.Err() != nil && !first:
			return nil
		case err != nil && first:
			return preflight.Top.Explain(ctx, fmt.Errorf("list the nodes: %w", kube.Explain(err)), "look at AI nodes' GPUs", preflight.Needs{Cluster: target, Rights: topRights()})
		case err != nil:
			o.env.progress().Warn("", "list the nodes: %v", err) // the next time may be better
		default:
			if err := o.show(nodes); err != nil {
				return err
			}
		}
		if !o.watch {
			return allUnread(nodes)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.env.Clock.After(o.every):
		}
	}
}

func topRights() []preflight.Right {
	return []preflight.Right{{Verb: "list", Resource: "nodes"}, {Verb: "get", Resource: "nodes", Subresource: "proxy"}}
}

// show writes the whole at once, so that a terminal does not flicker.
func (o *topOptions) show(nodes []top.Node) error {
	if o.format != "" {
		if nodes == nil {
			nodes = []top.Node{}
		}
		return output.Document(o.env.Out, o.format, struct {
			Nodes []top.Node `json:"nodes"`
		}{nodes})
	}
	if len(nodes) == 0 {
		fmt.Fprintln(o.env.ErrOut, "No AI node is bound to this cluster. Bind one:  kubectl ainode bind NODE --to CONFIG")
		return nil
	}
	var screen bytes.Buffer
	write := top.Cards
	if o.pods {
		write = top.Pods
	}
	if o.watch {
		if printers.AllowsColorOutput(o.env.Out) { // a terminal that knows how to be cleared
			screen.WriteString("\x1b[H\x1b[2J\x1b[3J")
		}
		fmt.Fprintf(&screen, "%s\n\n", o.env.Clock.Now().Format(time.TimeOnly))
	}
	if err := write(&screen, nodes, o.env.Clock.Now()); err != nil {
		return err
	}
	if o.pods && screen.Len() == 0 {
		fmt.Fprintln(o.env.ErrOut, "No pod has a GPU.")
	}
	_, err := screen.WriteTo(o.env.Out)
	return err
}

// allUnread is an error if not one node could be read: then nothing was shown.
func allUnread(nodes []top.Node) error {
	for i := range nodes {
		if nodes[i].Problem == "" {
			return nil
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	return errors.New("no AI node could be read")
}
