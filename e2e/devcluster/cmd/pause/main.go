// Command pause does nothing until it is told to end. It is the process that
// keeps a pod's namespaces alive, and a room's (see internal/room).
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// As process 1 of a shared process namespace it inherits orphans: reap them.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}
