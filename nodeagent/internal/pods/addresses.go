package pods

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
)

// shared reports whether pods share the node's addresses.
func (m *Manager) shared() bool { return m.o.Network == crispec.Host }

// addresses are the pod's, the preferred one first; none while it has no sandbox.
func (w *worker) addresses() []string {
	if w.m.shared() {
		return w.m.o.HostIPs()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ips
}

// sawSandbox takes note of the addresses and the handler of the newest sandbox.
func (w *worker) sawSandbox(status *runtimeapi.PodSandboxStatus) {
	var ips []string
	if ip := status.GetNetwork().GetIp(); ip != "" {
		ips = append(ips, ip)
	}
	for _, more := range status.GetNetwork().GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ips, w.handler = ips, status.GetRuntimeHandler()
}

// makeSandbox makes the pod's next sandbox. What is left of those before it is
// ended: a sandbox whose process has died still has its address.
func (w *worker) makeSandbox(ctx context.Context, t *task, config *runtimeapi.PodSandboxConfig) (string, error) {
	for _, s := range t.actual.Sandboxes {
		if err := w.m.o.Runtime.StopPodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
			return "", fmt.Errorf("stop the pod's old sandbox: %w", err)
		}
	}
	handler, err := w.wantedHandler()
	if err != nil {
		return "", err
	}
	id, err := w.m.o.Runtime.RunPodSandbox(ctx, config, handler)
	if err != nil {
		return "", err
	}
	if w.m.shared() {
		w.sawSandbox(&runtimeapi.PodSandboxStatus{RuntimeHandler: handler})
		return id, nil
	}
	answer, err := w.m.o.Runtime.PodSandboxStatus(ctx, id, false)
	if err != nil {
		return "", fmt.Errorf("look at the pod's new sandbox: %w", err)
	}
	w.sawSandbox(answer.GetStatus())
	if len(w.addresses()) == 0 {
		return "", fmt.Errorf("the runtime gave the pod's sandbox no address")
	}
	return id, nil
}

// env is the environment of a container. Where it tells the pod's address, it is
// made once there is a sandbox, which has it.
func (w *worker) env(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sandbox <-chan struct{}) ([]*runtimeapi.KeyValue, error) {
	if !w.m.shared() && tellsPodIP(c) {
		select {
		case <-sandbox:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	services, err := w.serviceEnv(ctx, pod)
	if err != nil {
		return nil, err
	}
	return crispec.Env(ctx, pod, c, w.m.o.Objects, crispec.Facts{
		PodIPs: w.addresses(), HostIPs: w.m.o.HostIPs(), ClusterDomain: w.m.o.ClusterDomain, ServiceEnv: services,
		Allocatable: w.m.o.Node().Status.Allocatable,
	})
}

func tellsPodIP(c *corev1.Container) bool {
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			switch e.ValueFrom.FieldRef.FieldPath {
			case "status.podIP", "status.podIPs":
				return true
			}
		}
	}
	return false
}
