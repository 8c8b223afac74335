package cri

import runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

// Live reports whether the container may have a process.
func Live(c *runtimeapi.ContainerStatus) bool {
	return c.State == runtimeapi.ContainerState_CONTAINER_RUNNING || c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

// MayRun reports whether the runtime holds anything of the pod that may have processes.
func (p *Pod) MayRun() bool {
	for _, s := range p.Sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			return true
		}
	}
	for _, c := range p.Containers {
		if Live(c) {
			return true
		}
	}
	return false
}
