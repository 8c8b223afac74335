// Command conformance runs the Kubernetes project's own node tests on a kubelet and
// on an AI node and writes docs/conformance.md. People type `make conformance`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ainode/ainode/e2e/story"
	"github.com/ainode/ainode/e2e/yardstick"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("dir", ".build/conformance", "where the cluster, the programs and the suite's reports live")
	columns := flag.String("columns", "abc", "a for the kubelet, b for the AI node, c for the AI node behind the webhook; all of them are needed for the table")
	flag.Parse()
	root, absolute, err := story.Place(*dir)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	y := &yardstick.Yardstick{Root: root, Dir: absolute, Columns: *columns, Out: os.Stdout}
	return y.Run(ctx)
}
