package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/ainode/ainode/plugin/internal/bootstrap"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

type addOptions struct {
	env       *Env
	node      string
	joinFile  string
	hubServer string
	ttl       time.Duration
	dryRun    dryRun
}

func newAdd(env *Env) *cobra.Command {
	o := &addOptions{env: env, ttl: time.Hour}
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a GPU machine to the pool; prints the command to run there",
		Long: templates.LongDesc(`
			Add a GPU machine to the pool; prints the command to run on it.

			The command holds a join text that works once and for a limited time, on one machine. It is a secret until then:
			keep it out of tickets and chats. Adding a node again makes a new join text and voids the one before.`),
		Example: templates.Examples(`
			# Add a machine; paste what is printed into a root shell there
			kubectl ainode add ai-h200-01

			# Write the join text into a file, copy that there, and join with it
			kubectl ainode add ai-h200-01 --join-file join
			scp join gpu-box: && ssh gpu-box ainode-agent join --file join

			# The machines reach the hub at another address than you do
			kubectl ainode add ai-h200-01 --hub-server https://10.0.0.5:6443`),
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
	cmd.Flags().StringVar(&o.joinFile, "join-file", o.joinFile, "Write the join text into this file, readable by you only, rather than into the command.")
	cmd.Flags().StringVar(&o.hubServer, "hub-server", o.hubServer, "URL of the hub's API server as the machine reaches it. Default: as your kubeconfig reaches it.")
	cmd.Flags().DurationVar(&o.ttl, "ttl", o.ttl, "How long the join text works.")
	o.dryRun.addFlag(cmd)
	return cmd
}

func (o *addOptions) complete(args []string) error {
	if len(args) != 1 {
		return usageError("add", "one name of an AI node is needed, %d given", len(args))
	}
	o.node = args[0]
	return nil
}

func (o *addOptions) validate() error {
	if o.ttl < 10*time.Minute || o.ttl > 24*time.Hour {
		return usageError("add", "--ttl is between 10m and 24h, not %s", o.ttl)
	}
	if err := o.dryRun.validate("add"); err != nil {
		return err
	}
	return bootstrap.ValidateName(o.node)
}

func (o *addOptions) run(ctx context.Context) error {
	hub, err := o.env.Clusters.Hub()
	if err != nil {
		return err
	}
	at, err := hub.Address(ctx, o.hubServer, "--hub-server")
	if err != nil {
		return err
	}
	if err := preflight.Binder.Check(ctx, "add AI nodes", preflight.Needs{Cluster: hub, Rights: bootstrap.AddRights(ctx, hub, o.node)}); err != nil {
		return err
	}
	unreached, err := hub.Greeted(ctx, at, "--hub-server")
	if err != nil {
		return err
	}
	if o.joinFile != "" {
		// Now, and not when everything is made and an earlier join file void.
		probe, err := os.CreateTemp(dirOf(o.joinFile), ".ainode-*")
		if err != nil {
			return fmt.Errorf("write the join file: %w", err)
		}
		probe.Close()
		os.Remove(probe.Name())
	}
	if o.dryRun.client() {
		return o.foresee(ctx, hub)
	}
	added, err := bootstrap.Add(ctx, hub, o.node, at, o.ttl, o.dryRun.options()...)
	if err != nil {
		return err
	}
	if o.dryRun.server() {
		o.dryRun.announce(o.env, "ainode/%s added", o.node)
		return nil
	}
	progress := o.env.progress()
	warnUnreached(progress, o.node, at.Server, unreached, "--hub-server")
	if added.New {
		progress.Line(o.node, "added")
	} else {
		progress.Line(o.node, "was added before; earlier join texts are void")
	}
	if added.Record.Status.PublicKey != "" {
		until := "while its agent runs"
		if !added.Record.Released() {
			until = "until its binding has been ended (kubectl ainode unbind " + o.node + "; with --force if the machine is gone) and its agent is stopped"
		}
		progress.Warn(o.node, "machine %s has joined under this name already; another one that joins does nothing %s", added.Record.Status.Machine.ID, until)
	}
	text, err := added.Join.Encode()
	if err != nil {
		return err
	}
	until := added.Join.Expires.UTC().Format(time.RFC3339)
	if o.joinFile == "" {
		progress.Line(o.node, "run this on the machine, as root; it works once, until %s", until)
		fmt.Fprintf(o.env.Out, "ainode-agent join --file - <<'EOF'\n%s\nEOF\n", text)
		return nil
	}
	if err := writeFileSecret(o.joinFile, []byte(text+"\n")); err != nil {
		return fmt.Errorf("write the join file: %w", err)
	}
	progress.Line(o.node, "copy %s to the machine and run this there, as root; it works once, until %s", o.joinFile, until)
	fmt.Fprintf(o.env.Out, "ainode-agent join --file %s\n", filepath.Base(o.joinFile))
	return nil
}

// foresee says what adding would do.
func (o *addOptions) foresee(ctx context.Context, hub *kube.Cluster) error {
	_, err := hub.AINode(ctx, o.node)
	switch {
	case apierrors.IsNotFound(err):
		o.dryRun.announce(o.env, "ainode/%s added", o.node)
	case err != nil:
		return fmt.Errorf("read AI node %q: %w", o.node, err)
	default:
		o.dryRun.announce(o.env, "ainode/%s invited again, earlier join texts void", o.node)
	}
	return nil
}

func dirOf(path string) string { return filepath.Dir(path) }
