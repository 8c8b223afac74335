// Command story tells the whole story on this machine (up) and takes it away
// again (down). People type `make demo` and `make demo-down`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ainode/ainode/e2e/story"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || (args[0] != "up" && args[0] != "down") {
		return fmt.Errorf("usage: story up|down [--dir DIR]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", ".demo", "where the cluster and its programs live")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	root, absolute, err := story.Place(*dir)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &story.Story{Root: root, Dir: absolute, Out: os.Stdout}
	if args[0] == "down" {
		return s.Down(ctx)
	}
	err = s.Up(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; typed again it goes on with what is built and up. Take that away with: make demo-down")
	}
	if err != nil {
		return fmt.Errorf("%w\nWhat is up stays up; logs are in %s/log. Take it away with: make demo-down", err, *dir)
	}
	return nil
}
