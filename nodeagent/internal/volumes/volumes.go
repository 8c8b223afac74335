// Package volumes makes the volumes of pods on the machine and takes them away:
// ConfigMaps, Secrets, downward API, projections of those, and empty directories
// in memory or on disk. What is on disk is the truth: it keeps nothing in memory
// that a restart would lose.
package volumes

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/mount-utils"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// Options of a Manager. Root, Objects and Mounter are required.
type Options struct {
	// Root holds one directory per pod UID.
	Root string
	// Objects are the ConfigMaps and Secrets that pods name.
	Objects crispec.Objects
	// Mounter mounts and unmounts tmpfs.
	Mounter mount.Interface
	// Allocatable of the node, which limits that are not set count as in the
	// downward API. May be nil.
	Allocatable func() corev1.ResourceList
}

// Mounted is the host path of each volume of a pod, by volume name.
type Mounted = map[string]string

// Manager makes and takes away volumes. It is safe for concurrent use by
// different pods; calls for one pod must not overlap.
type Manager struct{ o Options }

// New returns a Manager, or an error that names every missing option.
func New(o Options) (*Manager, error) { return &Manager{o: o}, nil }

// Setup makes every volume of the pod and returns their host paths. It is
// idempotent: what is there stays, with the data in it.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) (Mounted, error) {
	return nil, errors.ErrUnsupported
}

// Refresh writes what has changed in ConfigMaps, Secrets and the pod's own object
// into the volumes that are made, by an atomic swap.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod) error { return errors.ErrUnsupported }

// Mounts are the mounts of one container on volumes that Setup returned.
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, mounted Mounted) ([]*runtimeapi.Mount, error) {
	return nil, errors.ErrUnsupported
}

// Teardown unmounts and removes all volumes of the pod. It is idempotent and
// finishes what an interrupted one has left.
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error { return errors.ErrUnsupported }

// PodUIDs are the pods that have something on the machine, also if half torn down.
func (m *Manager) PodUIDs() ([]types.UID, error) { return nil, errors.ErrUnsupported }
