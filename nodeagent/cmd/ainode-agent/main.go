// Command ainode-agent makes a GPU machine an AI node.
package main

import (
	"os"

	"github.com/ainode/ainode/nodeagent/internal/agent"
)

func main() { os.Exit(agent.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
