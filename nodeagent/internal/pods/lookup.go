package pods

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNotFound says that the node has no such pod or the pod no such container;
// ErrNotRunning that it is there but has not been started (yet).
var (
	ErrNotFound   = errors.New("not found")
	ErrNotRunning = errors.New("not running")
)

// Pods are the pods of the node with their latest status. They are copies.
func (m *Manager) Pods() []*corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pods []*corev1.Pod
	for _, w := range m.workers {
		w.mu.Lock()
		if w.pod != nil {
			pod := w.pod.DeepCopy()
			if w.status != nil {
				pod.Status = *w.status.DeepCopy()
			}
			pods = append(pods, pod)
		}
		w.mu.Unlock()
	}
	return pods
}

// Containers are the node's containers as they were seen last. Do not change them.
func (m *Manager) Containers() []*runtimeapi.ContainerStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*runtimeapi.ContainerStatus
	for _, w := range m.workers {
		w.mu.Lock()
		if w.actual != nil {
			all = append(all, w.actual.Containers...)
		}
		w.mu.Unlock()
	}
	return all
}

// ContainerID returns the id of the container's newest instance in the runtime.
// An empty uid means the pod that has this name now.
func (m *Manager) ContainerID(namespace, name string, uid types.UID, container string) (string, error) {
	c, err := m.instance(namespace, name, uid, container, false)
	if err != nil {
		return "", err
	}
	return c.Id, nil
}

// SandboxID returns the id of the pod's ready sandbox in the runtime.
func (m *Manager) SandboxID(namespace, name string, uid types.UID) (string, error) {
	w, err := m.lookup(namespace, name, uid)
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.actual != nil {
		for _, s := range w.actual.Sandboxes {
			if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
				return s.Id, nil
			}
		}
	}
	return "", fmt.Errorf("pod %q is %w", name, ErrNotRunning)
}

// LogPath returns the log file of the container's newest instance, or, if previous
// is set, of the one before it.
func (m *Manager) LogPath(namespace, name string, uid types.UID, container string, previous bool) (string, error) {
	c, err := m.instance(namespace, name, uid, container, previous)
	if err != nil {
		return "", err
	}
	return c.LogPath, nil
}

func (m *Manager) lookup(namespace, name string, uid types.UID) (*worker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found *worker
	for _, w := range m.workers {
		if podNamespace, podName := w.identity(); podNamespace != namespace || podName != name || uid != "" && w.uid != uid {
			continue
		}
		if found == nil || newer(w, found) {
			found = w
		}
	}
	if found == nil {
		return nil, fmt.Errorf("pod %q %w", namespace+"/"+name, ErrNotFound)
	}
	return found, nil
}

// newer reports whether a's pod was made after b's: of two pods of one name the
// older one is ending, and may be for as long as a volume of it is in the way.
func newer(a, b *worker) bool {
	if a.vanished() != b.vanished() {
		return b.vanished()
	}
	x, y := a.object(), b.object()
	if x == nil || y == nil {
		return y == nil && x != nil
	}
	return y.CreationTimestamp.Before(&x.CreationTimestamp)
}

func (m *Manager) instance(namespace, name string, uid types.UID, container string, previous bool) (*runtimeapi.ContainerStatus, error) {
	w, err := m.lookup(namespace, name, uid)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod != nil && findContainer(w.pod, container) == nil {
		return nil, fmt.Errorf("container %q of pod %q %w", container, name, ErrNotFound)
	}
	skip := previous
	if w.actual != nil {
		for _, c := range w.actual.Containers {
			if c.GetMetadata().GetName() != container {
				continue
			}
			if !skip {
				return c, nil
			}
			skip = false
		}
	}
	if previous {
		return nil, fmt.Errorf("previous terminated container %q in pod %q %w", container, name, ErrNotFound)
	}
	return nil, fmt.Errorf("container %q in pod %q is waiting to start: %w", container, name, ErrNotRunning)
}
