// Command disk is the CSI driver of tests as a program, for machines that a test can't
// mount on: disk KUBELET-DIR NAME DATA.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: disk KUBELET-DIR NAME DATA")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	d := csitest.Make(os.Args[1], os.Args[2], os.Args[3])
	d.Topology, d.MaxVolumes = map[string]string{"topology." + d.Name + "/rack": "7"}, 16
	if err := d.Listen(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ctx.Done()
	d.Stop()
}
