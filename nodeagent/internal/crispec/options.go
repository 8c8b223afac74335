package crispec

import (
	"context"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NetworkMode says whose addresses a pod has.
type NetworkMode int

const (
	// Host: pods share the address that the node was bound with.
	Host NetworkMode = iota
	// CNI: each pod has an address of its own, made by the runtime's CNI plugins.
	CNI
)

// SandboxOptions are what a sandbox needs besides its pod.
type SandboxOptions struct {
	// Epoch of the binding, recorded on the sandbox.
	Epoch int64
	// LogDirectory holds the logs of the pod's containers, see LogDirectory.
	LogDirectory string
	// CgroupParent is the cgroup of all pods; the pod's own is made below it.
	// Empty leaves it to the runtime.
	CgroupParent string
	// Hostname of the sandbox; empty is the pod's by Kubernetes' rules.
	Hostname string
	// DNS is what DNS returned; nil leaves resolv.conf to the runtime.
	DNS     *runtimeapi.DNSConfig
	Network NetworkMode
	// Attempt counts the sandboxes of one pod, from 0.
	Attempt uint32
}

// ContainerOptions are what a container needs besides its pod.
type ContainerOptions struct {
	// ImageRef is the reference of an image that is on the machine.
	ImageRef string
	// Env is what Env returned: complete, expanded and in order.
	Env []*runtimeapi.KeyValue
	// Mounts are what volumes and others put into the container.
	Mounts []*runtimeapi.Mount
	// GPUs are the UUIDs of the cards the container has; recorded on it.
	GPUs []string
	// CDIDevices are their CDI names, which the runtime injects.
	CDIDevices []string
	// Attempt counts the containers of one name in a pod, from 0.
	Attempt uint32
	// SpecHash is recorded on the container; empty is SpecHash of it.
	SpecHash string
	// CgroupParent is the same as in SandboxOptions.
	CgroupParent string
	// NodeMemory is the machine's memory in bytes, by which OOM scores are shared
	// out among Burstable pods; 0 gives them the score of one that asked for little.
	NodeMemory int64
}

// Objects are the ConfigMaps and Secrets that pods of this node refer to. An
// object that does not exist is an error for which apierrors.IsNotFound holds.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Facts are what the downward API tells a container besides its pod object.
type Facts struct {
	// PodIPs and HostIPs, the preferred one first.
	PodIPs, HostIPs []string
	// Allocatable of the node: what a limit that is not set counts as.
	Allocatable corev1.ResourceList
}

// LogDirectory is ROOT/NAMESPACE_NAME_UID, the kubelet's layout below
// /var/log/pods, which log collectors look for.
func LogDirectory(root string, pod *corev1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}
