package agent

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/binding"
	"github.com/ainode/ainode/nodeagent/internal/config"
	"github.com/ainode/ainode/nodeagent/internal/gpuhealth"
)

func readmitCommand() *cobra.Command {
	state := config.Default().StateDir
	c := &cobra.Command{
		Use:   "readmit UUID",
		Short: "Vouch for a GPU or MIG slice that the agent holds to be broken for good",
		Long: `Vouch for a GPU or MIG slice that the agent holds to be broken for good: one that was reseated, whose
power was connected, or that a diagnosis found to be well. It has to be quiet for a while
before pods get it again, and the next error takes it out as ever.

What is out for other reasons comes back by itself. ainode-agent doctor lists all that is out.`,
		Example: "  ainode-agent readmit GPU-6f3b0c5e-0000-4000-8000-0123456789ab",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			out, err := gpuhealth.Readmit(state.GPUs(), args[0], clock.RealClock{}.Now())
			if err != nil {
				return err
			}
			when := "the agent hears of it within seconds"
			if !binding.Locked(state.Lock()) {
				when = "no agent runs; the next one hears of it: systemctl start ainode-agent"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is on probation: pods get it once it was quiet for a while\nit was out for: %s\n%s\n", out.UUID, out.Text, when)
			return err
		},
	}
	c.Flags().StringVar((*string)(&state), "state-dir", string(state), "directory that holds all the agent remembers")
	return c
}
