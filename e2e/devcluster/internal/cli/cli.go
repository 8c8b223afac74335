// Package cli is the command line of devcluster.
package cli

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ainode/ainode/e2e/devcluster/internal/build"
	"github.com/ainode/ainode/e2e/devcluster/internal/cluster"
	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/registry"
	"github.com/ainode/ainode/e2e/devcluster/internal/room"
)

// Run executes one command and returns the exit status.
func Run(args []string, sources fs.FS) int {
	// The room's namespaces must be those of the main thread, so this one
	// subcommand is dealt with before anything can move off it.
	if len(args) == 2 && args[0] == room.HoldCommand {
		return exit(room.Hold(args[1]))
	}
	// iptables and ip are where some users' PATH does not look.
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	root := newRoot(sources)
	root.SetArgs(args)
	return exit(root.Execute())
}

func exit(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

type app struct {
	dir     string
	sources fs.FS
}

func (a *app) layout() (layout.Layout, error) { return layout.New(a.dir) }

func newRoot(sources fs.FS) *cobra.Command {
	a := &app{sources: sources}
	root := &cobra.Command{
		Use:   "devcluster",
		Short: "A real Kubernetes on one bare Linux machine, for development and tests",
		Long: `devcluster builds Kubernetes, etcd, containerd and what they need from their Go
modules and runs them under one directory: a control plane, one ordinary node,
and machines, each with a network and a containerd of its own, for agents.
It needs root. 'down' leaves nothing behind.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&a.dir, "dir", os.Getenv("DEVCLUSTER_DIR"), "the cluster's directory (or set DEVCLUSTER_DIR)")
	root.AddCommand(a.up(), a.build(), a.down(), a.connect(), a.status(), a.loadImage(), a.exec(), a.start(), a.stop(), a.enter(), a.registry())
	return root
}

func (a *app) up() *cobra.Command {
	machines, kubernetes := 1, build.Kubernetes
	cmd := &cobra.Command{
		Use: "up", Short: "Build what is missing and start the cluster", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			interrupted := make(chan os.Signal, 1)
			signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
			go func() {
				<-interrupted
				fmt.Fprintf(os.Stderr, "\ninterrupted: `devcluster up --dir %[1]s` goes on from here, `devcluster down --dir %[1]s` takes away what was made\n", l.Dir)
				os.Exit(130)
			}()
			return cluster.Up(l, machines, kubernetes, a.sources, os.Stderr)
		},
	}
	cmd.Flags().IntVar(&machines, "machines", machines, "how many machines for agents")
	kubernetesFlag(cmd, &kubernetes)
	return cmd
}

func kubernetesFlag(cmd *cobra.Command, kubernetes *string) {
	cmd.Flags().StringVar(kubernetes, "kubernetes", *kubernetes, "version of Kubernetes: "+build.Kubernetes+", "+build.Older+", or "+build.Newer+", which is the first and says otherwise")
}

func (a *app) build() *cobra.Command {
	kubernetes := build.Kubernetes
	cmd := &cobra.Command{
		Use: "build", Short: "Build the cluster's programs and start nothing", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return cluster.Build(l, kubernetes, a.sources, os.Stderr)
		},
	}
	kubernetesFlag(cmd, &kubernetes)
	return cmd
}

func (a *app) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "End the cluster and remove everything but the built programs", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return cluster.Down(l, all, os.Stderr)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove the built programs too")
	return cmd
}

func (a *app) connect() *cobra.Command {
	return &cobra.Command{
		Use: "connect OTHERDIR", Short: "Cable this cluster to another one: each routes the other's addresses", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			other, err := layout.New(args[0])
			if err != nil {
				return err
			}
			return cluster.Connect(l, other)
		},
	}
}

func (a *app) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Say what runs and where", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			report, err := cluster.Status(l)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(report)
			case "":
				return printStatus(cmd, report)
			}
			return fmt.Errorf("-o %s: only json is known", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if left out")
	return cmd
}

func printStatus(cmd *cobra.Command, report cluster.Report) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	running := "running"
	if !report.Running {
		running = "NOT RUNNING (`devcluster up --dir " + report.Dir + "` starts what is missing)"
	}
	fmt.Fprintf(w, "cluster\t%s\n", running)
	fmt.Fprintf(w, "server\t%s\nkubeconfig\t%s\nprograms\t%s\n", report.Server, report.Kubeconfig, report.Bin)
	fmt.Fprintf(w, "node\t%s\t%s\tpods %s\n", report.Node.Name, report.Node.Address, report.Node.PodCIDR)
	for _, machine := range report.Machines {
		fmt.Fprintf(w, "machine\t%s\t%s\tpods %s\n", machine.Name, machine.Address, machine.PodCIDR)
	}
	fmt.Fprintf(w, "registry\t%s\tuser %s\tpassword in %s\n", report.Registry.Host, report.Registry.Username, report.Registry.PasswordFile)
	for _, component := range report.Components {
		state := "stopped"
		if component.Running {
			state = fmt.Sprintf("pid %d", component.Pid)
		}
		fmt.Fprintf(w, "component\t%s\t%s\t%s\n", component.Name, state, component.Log)
	}
	return w.Flush()
}

func (a *app) exec() *cobra.Command {
	return &cobra.Command{
		Use: "exec ROOM -- COMMAND [ARG…]", Short: "Run a command inside a machine (or node-1)", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return a.become(args, os.Environ()) },
	}
}

// enter is how daemons get into their room.
func (a *app) enter() *cobra.Command {
	return &cobra.Command{
		Use: room.EnterCommand, Hidden: true, Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return a.become(args, os.Environ()) },
	}
}

func (a *app) become(args, env []string) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	err = room.Enter(l, args[0], env, args[1:])
	room.Answer(err)
	return err
}

func (a *app) start() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "start --name NAME ROOM -- COMMAND [ARG…]", Short: "Start a daemon inside a machine (or node-1)", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			if id, running := daemon.Find(l, name); running {
				return fmt.Errorf("%s runs already, as process %d: `devcluster stop --dir %s --name %s` first", name, id.Number, l.Dir, name)
			}
			if _, err := room.Pid(l, args[0]); err != nil {
				return err
			}
			id, err := daemon.Start(l, daemon.Spec{Name: name, Room: args[0], Argv: args[1:], Env: os.Environ()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), id.Number)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "names DIR/run/NAME.pid and DIR/log/NAME.log")
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP,
}

func (a *app) stop() *cobra.Command {
	var name string
	signalName, patience := "TERM", 10*time.Second
	cmd := &cobra.Command{
		Use: "stop --name NAME", Short: "Stop a daemon and wait for its end", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			number, ok := signals[strings.TrimPrefix(strings.ToUpper(signalName), "SIG")]
			if !ok {
				return fmt.Errorf("--signal %s: choose TERM, KILL, INT, QUIT or HUP", signalName)
			}
			return daemon.Stop(l, name, number, patience)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the name it was started with")
	cmd.Flags().StringVar(&signalName, "signal", signalName, "TERM, KILL, INT, QUIT or HUP")
	cmd.Flags().DurationVar(&patience, "timeout", patience, "how long to wait; after TERM a KILL follows")
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

func (a *app) registry() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: registry.Command, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return registry.Serve(l, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address")
	return cmd
}
