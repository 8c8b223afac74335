package agent

import (
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// heartbeatTimeout ends a renewal of the Lease that hangs: a quarter of its life.
const heartbeatTimeout = 10 * time.Second

// clients reach the target over one connection, each at its own rate.
type clients struct {
	pods, heartbeat, events, reviews kubernetes.Interface
}

func clientsOf(config *rest.Config) (clients, error) {
	var c clients
	heartbeat := rest.CopyConfig(config)
	heartbeat.QPS, heartbeat.Timeout = -1, heartbeatTimeout
	for _, one := range []struct {
		to     *kubernetes.Interface
		config *rest.Config
	}{{&c.pods, config}, {&c.heartbeat, heartbeat}, {&c.events, config}, {&c.reviews, config}} {
		client, err := kubernetes.NewForConfig(one.config)
		if err != nil {
			return clients{}, fmt.Errorf("make a client of the target: %w", err)
		}
		*one.to = client
	}
	return c, nil
}
