package crispec

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox is the sandbox of pod.
func Sandbox(pod *corev1.Pod, o SandboxOptions) (*runtimeapi.PodSandboxConfig, error) {
	return nil, errors.ErrUnsupported
}

// Container is one container of pod.
func Container(pod *corev1.Pod, c *corev1.Container, o ContainerOptions) (*runtimeapi.ContainerConfig, error) {
	return nil, errors.ErrUnsupported
}

// Env are the variables of a container.
func Env(ctx context.Context, pod *corev1.Pod, c *corev1.Container, objects Objects, facts Facts) ([]*runtimeapi.KeyValue, error) {
	return nil, errors.ErrUnsupported
}

// SpecHash tells two definitions of a container apart.
func SpecHash(c *corev1.Container) string { return "" }

// LogPath of a container below its pod's log directory: CONTAINER/ATTEMPT.log.
func LogPath(container string, attempt uint32) string {
	return fmt.Sprintf("%s/%d.log", container, attempt)
}

// DNS is the resolv.conf of a pod.
func DNS(pod *corev1.Pod, node NodeResolv) *runtimeapi.DNSConfig { return nil }
