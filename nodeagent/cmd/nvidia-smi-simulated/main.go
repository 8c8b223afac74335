// Command nvidia-smi-simulated stands in for nvidia-smi in containers that were
// given simulated GPUs. It lists exactly those and says that they are simulated.
package main

import (
	"os"

	"github.com/ainode/ainode/nodeagent/internal/gpu/simulated"
)

func main() {
	os.Exit(run(os.Args[1:], simulated.Dir, os.Stdout, os.Stderr))
}
