package agent

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ainode/ainode/nodeagent/internal/logrotation"
	"github.com/ainode/ainode/nodeagent/internal/pods"
)

// newLogRotator makes what keeps the logs of the manager's containers short.
func (t *tenant) newLogRotator(manager *pods.Manager) (*logrotation.Rotator, error) {
	size, err := resource.ParseQuantity(t.cfg.ContainerLogMaxSize)
	if err != nil {
		return nil, fmt.Errorf("read the size of logs: %w", err)
	}
	return logrotation.New(logrotation.Options{
		Runtime: t.runtime, Containers: manager.Containers, Clock: t.clock,
		MaxSize: size.Value(), MaxFiles: t.cfg.ContainerLogMaxFiles,
	})
}
