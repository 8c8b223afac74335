package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// servicesPatience is how long a container waits for the Services to be read once:
// an agent that has just been started hears of its pods at the same time.
const servicesPatience = 2 * time.Second

// errServices is worded as the kubelet has it (pkg/kubelet/kubelet_pods.go).
var errServices = errors.New("services have not yet been read at least once, cannot construct envvars")

// serviceEnv are the variables that tell a container which starts now of Services.
// An agent that was started while the API is away takes what its last life remembered.
func (w *worker) serviceEnv(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	select {
	case <-w.m.o.Services.Read():
	case <-w.m.o.Clock.After(servicesPatience):
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.services == nil {
			return nil, errServices
		}
		return w.services, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	services, err := w.m.o.Services.Of(pod.Namespace)
	if err != nil {
		return nil, fmt.Errorf("make the variables of Services: %w", err)
	}
	return crispec.ServiceEnv(pod, services), nil
}

// servicesRead reports whether the Services have been read once.
func (m *Manager) servicesRead() bool {
	select {
	case <-m.o.Services.Read():
		return true
	default:
		return false
	}
}

// servicesToRemember are the variables of Services for the pod's checkpoint: those of
// an earlier life while there are no newer ones.
func (w *worker) servicesToRemember(pod *corev1.Pod) map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m.servicesRead() {
		if services, err := w.m.o.Services.Of(pod.Namespace); err == nil {
			w.services = crispec.ServiceEnv(pod, services)
		}
	}
	return w.services
}
