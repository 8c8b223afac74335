package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Main is the program: it returns the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	root := &cobra.Command{
		Use:           "ainode-agent",
		Short:         "Makes this machine an AI node of a Kubernetes cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	root.AddCommand(runCommand(), joinCommand(), doctorCommand(), readmitCommand(), versionCommand())
	switch err := root.ExecuteContext(ctx); {
	case errors.Is(err, errFindings):
		return 2 // they have been shown
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "error: %v\n", err)
		return 1
	}
	return 0
}

func runCommand() *cobra.Command {
	cfg := config.Default()
	var file, format string
	var verbosity int
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent; pods outlive it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := complete(c, &cfg, file); err != nil {
				return err
			}
			if err := logTo(c.ErrOrStderr(), format, verbosity); err != nil {
				return err
			}
			return Run(c.Context(), cfg)
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().StringVar(&file, "config", "", "file with the same options ("+config.APIVersion+", kind "+config.Kind+"); flags win")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	c.Flags().IntVarP(&verbosity, "verbosity", "v", 0, fmt.Sprintf("log more, up to %d", mostVerbose))
	return c
}

// complete reads the file, if there is one, and checks what came of it and the flags.
func complete(c *cobra.Command, cfg *config.Run, file string) error {
	if file == "" {
		return cfg.Validate()
	}
	// The file first, then the flags that were given once more: flags win.
	given := map[string]string{}
	for _, name := range changed(c) {
		given[name] = c.Flag(name).Value.String()
	}
	if err := cfg.ReadFile(file); err != nil {
		return err
	}
	for name, value := range given {
		if err := c.Flags().Set(name, value); err != nil {
			return fmt.Errorf("flag --%s: %w", name, err)
		}
	}
	return cfg.Validate()
}

func joinCommand() *cobra.Command {
	state := config.Default().StateDir
	var file string
	var reset bool
	c := &cobra.Command{
		Use:   "join --file PATH|-",
		Short: "Let this machine join a pool with the file that kubectl ainode add printed",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // and not quoted: it could be the secret itself
				return errors.New("join takes no arguments: a join file is a secret, give its path with --file, or --file - and standard input")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("--file is missing: the join file that kubectl ainode add printed, or - for standard input")
			}
			text, err := readSecret(file, c.InOrStdin())
			if err != nil {
				return err
			}
			here, err := machine.Read("/")
			if err != nil {
				return err
			}
			joined, key, err := binding.Join(c.Context(), binding.JoinOptions{
				Text: text, Store: binding.Store{State: state}, Reset: reset, Clock: clock.RealClock{},
				Hardware: machine.Hardware{ProductUUID: here.ProductUUID},
			})
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.OutOrStdout(), "joined as %s of %s\nkey %s (kubectl ainode bind %s --expect-key pins it)\nnext: systemctl enable --now ainode-agent\n",
				joined.Node, joined.Server, key.Fingerprint(), joined.Node)
			return nil
		},
	}
	c.Flags().StringVar(&file, "file", "", "join file, or - for standard input")
	c.Flags().StringVar((*string)(&state), "state-dir", string(state), "directory that holds all the agent remembers")
	c.Flags().BoolVar(&reset, "reset", false, "become another AI node than this machine was, if it is bound to nothing")
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "ainode-agent %s (kubelet %s)\n", Version(), KubeletVersion())
			return err
		},
	}
}

// readSecret reads at most 1 MiB.
func readSecret(path string, in io.Reader) (string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read the join file: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read the join file: %w", err)
	}
	return string(raw), nil
}

func changed(c *cobra.Command) []string {
	var names []string
	c.Flags().Visit(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// mostVerbose is where the libraries begin to log what requests and answers hold:
// Secrets, and the environment of containers.
const mostVerbose = 7

// logTo sends everything, klog's users included, through one handler.
func logTo(w io.Writer, format string, verbosity int) error {
	options := &slog.HandlerOptions{Level: slog.Level(-min(verbosity, mostVerbose))}
	var handler slog.Handler
	switch format {
	case "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return fmt.Errorf("--log-format: want text or json, got %q", format)
	}
	klog.SetLoggerWithOptions(logr.FromSlogHandler(handler), klog.ContextualLogger(true))
	return nil
}
