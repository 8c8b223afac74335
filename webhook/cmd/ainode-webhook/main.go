// Command ainode-webhook runs in a target cluster: it admits the pods of AI nodes
// and approves the nodes' serving certificates.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ainode/ainode/webhook/internal/server"
)

func main() {
	err := server.Run(ctrl.SetupSignalHandler(), os.Args[1:], os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
