// Command devcluster runs a real Kubernetes on one bare Linux machine: no
// container engine, no registry, nothing fetched but Go modules and packages
// of the distribution. See README.md.
package main

import (
	"embed"
	"os"
	"runtime"

	"github.com/ainode/ainode/e2e/devcluster/internal/cli"
)

// sources is what the cluster's own programs are built from, so that this
// program works without its repository at hand.
//
//go:embed go.mod go.sum older.mod older.sum cmd
var sources embed.FS

// A room's namespaces must be those of the first thread, which is the one that
// /proc/PID/ns shows; only here is it certain to be this one.
func init() { runtime.LockOSThread() }

func main() {
	os.Exit(cli.Run(os.Args[1:], sources))
}
