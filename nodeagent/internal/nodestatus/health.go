package nodestatus

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeStatus is what Probe needs of the container runtime.
type RuntimeStatus interface {
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
}

// patience is how long the runtime may take to answer.
const patience = 10 * time.Second

// Probe asks the runtime how it is; ownAddresses says that pods have addresses which it
// gives them. Pressures are nobody's here: see the eviction room.
func Probe(ctx context.Context, runtime RuntimeStatus, ownAddresses bool) Health {
	// A runtime that hangs must not keep the news of it.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var h Health
	answer, err := runtime.Status(ctx, false)
	switch {
	case err != nil:
		h.NotReady = "container runtime does not answer: " + err.Error()
	default:
		for _, c := range answer.GetStatus().GetConditions() {
			switch {
			case c.Status:
			case c.Type == runtimeapi.RuntimeReady:
				h.NotReady = fmt.Sprintf("container runtime is not ready: %s %s", c.Reason, c.Message)
			case c.Type == runtimeapi.NetworkReady && ownAddresses && h.NotReady == "":
				// In the kubelet's words (pkg/kubelet/kubelet.go, updateRuntimeUp).
				h.NotReady = fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message)
			}
		}
	}
	return h
}
