package pods

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Manager runs the pods of one node.
type Manager struct {
	o Options
}

// New makes a Manager; it names every missing option.
func New(o Options) (*Manager, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	return &Manager{o: o}, nil
}

// Run takes over the pods that the runtime holds, then watches the API and the
// runtime and runs the node's pods until ctx is done. It leaves pods running when
// it returns, and works while the API does not answer.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// StopAll ends every pod of this agent, whatever its epoch, each within grace, and
// removes sandboxes, volumes and remembered state. It returns when the last process
// has ended, or an error and what is left. It needs no API; call it when Run has
// returned.
func (m *Manager) StopAll(ctx context.Context, grace time.Duration) error { return errors.ErrUnsupported }

// GPUsInUse is how many cards are given to pods whose processes may still live.
func (m *Manager) GPUsInUse() int { return 0 }

// Pods are the pods of the node with their latest status. They are copies.
func (m *Manager) Pods() []*corev1.Pod { return nil }

// ContainerID returns the id of the container's newest instance in the runtime.
// An empty uid means the pod that has this name now.
func (m *Manager) ContainerID(namespace, name string, uid types.UID, container string) (string, error) {
	return "", errors.ErrUnsupported
}

// SandboxID returns the id of the pod's ready sandbox in the runtime.
func (m *Manager) SandboxID(namespace, name string, uid types.UID) (string, error) {
	return "", errors.ErrUnsupported
}

// LogPath returns the log file of the container's newest instance, or, if previous
// is set, of the one before it.
func (m *Manager) LogPath(namespace, name string, uid types.UID, container string, previous bool) (string, error) {
	return "", errors.ErrUnsupported
}
