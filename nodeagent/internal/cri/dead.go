package cri

import (
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// deadCache remembers statuses of containers that have exited, by id.
type deadCache struct {
	mu   sync.Mutex
	byID map[string]*runtimeapi.ContainerStatus
}

func (c *deadCache) get(id string) *runtimeapi.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *deadCache) put(status *runtimeapi.ContainerStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[status.Id] = status
}

func (c *deadCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, id)
}
