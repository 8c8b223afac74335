package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Values of --dry-run, as kubectl has them.
const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

// dryRun is the flag of every verb that changes something.
type dryRun string

func (d *dryRun) addFlag(cmd *cobra.Command) {
	*d = dryRunNone
	flags := cmd.Flags()
	flags.StringVar((*string)(d), "dry-run", string(*d), `"client" looks at everything and changes nothing; "server" has the API servers check the changes too and keep none.`)
	flags.Lookup("dry-run").NoOptDefVal = dryRunClient
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{dryRunNone, dryRunClient, dryRunServer}, cobra.ShellCompDirectiveNoFileComp))
}

func (d dryRun) validate(verb string) error {
	if d != dryRunNone && d != dryRunClient && d != dryRunServer {
		return usageError(verb, "--dry-run is none, client or server, not %q", string(d))
	}
	return nil
}

// client is true where nothing is sent that would change anything.
func (d dryRun) client() bool { return d == dryRunClient }

// server is true where changes are sent to be checked and not kept.
func (d dryRun) server() bool { return d == dryRunServer }

// options are what the API servers are told of writes.
func (d dryRun) options() []string {
	if d.server() {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// mark is what stands behind the word for what was done.
func (d dryRun) mark() string {
	switch d {
	case dryRunClient:
		return " (dry run)"
	case dryRunServer:
		return " (server dry run)"
	}
	return ""
}

// announce writes what was, or would be, done to an object.
func (d dryRun) announce(env *Env, format string, args ...any) {
	fmt.Fprintf(env.Out, format+"%s\n", append(args, d.mark())...)
}
