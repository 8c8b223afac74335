package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/diagnosis"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/doctor"
)

// errFindings ends a command that did what it should and found something: exit code
// 2, as of kubectl ainode.
var errFindings = errors.New("there are findings")

func doctorCommand() *cobra.Command {
	cfg := config.Default()
	var file, format string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "See what is wrong with this machine, and how to mend it",
		Long: `See what is wrong with this machine, and how to mend it: the system, the container
runtime, the cards, and the agent with what it is joined and bound to.

√ is well, ‼ works and will surprise, × does not work. Nothing is changed. It goes by
the options that it is given, which are those of run: give it the same. Exit code 2 says that
there are findings, 1 that it could not be done.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if format != "" && !slices.Contains(doctor.Formats, format) {
				return fmt.Errorf("--output: want one of %s, got %q", strings.Join(doctor.Formats, ", "), format)
			}
			if err := complete(c, &cfg, file); err != nil {
				return err
			}
			// What libraries log is no answer.
			if err := logTo(io.Discard, "text", 0); err != nil {
				return err
			}
			findings := doctor.Case{Config: cfg, Root: "/", Clock: clock.RealClock{}}.Examine(c.Context())
			if err := c.Context().Err(); err != nil {
				return err
			}
			if err := doctor.Write(c.OutOrStdout(), format, findings, coloured(c)); err != nil {
				return err
			}
			text, bad := diagnosis.Sum(findings)
			_, _ = fmt.Fprintln(c.ErrOrStderr(), text)
			if bad {
				return errFindings
			}
			return nil
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().StringVar(&file, "config", "", "file with the same options ("+config.APIVersion+", kind "+config.Kind+"); flags win")
	c.Flags().StringVarP(&format, "output", "o", "", "output format: json or short (one line a finding)")
	return c
}

// coloured reports whether a person at a terminal reads, who has not said NO_COLOR
// (https://no-color.org).
func coloured(c *cobra.Command) bool {
	f, ok := c.OutOrStdout().(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
