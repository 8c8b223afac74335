package crispec

import (
	"context"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
	// Epoch that the binding began in, recorded on the sandbox.
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
	// VisibleDevices is what NVIDIA's runtime handler is told of cards, whatever the pod
	// and its image say: UUIDs with commas between them, or NoDevices. Empty tells it
	// nothing, and leaves the variable to them.
	VisibleDevices string
	// Attempt counts the containers of one name in a pod, from 0.
	Attempt uint32
	// SpecHash is recorded on the container; empty is SpecHash of it.
	SpecHash string
	// Target is the id of the container whose processes this one sees; empty for
	// nearly all.
	Target string
	// CgroupParent and Network are the same as in SandboxOptions.
	CgroupParent string
	Network      NetworkMode
	// ImageUID or ImageUsername is the user that the image names. They are needed
	// where the pod sets a group or runAsNonRoot but no user.
	ImageUID      *int64
	ImageUsername string
	// NodeMemory is the machine's memory in bytes, by which OOM scores are shared
	// out among Burstable pods; 0 gives them the score of one that asked for little.
	NodeMemory int64
}

// NoDevices makes NVIDIA's runtime handler do what runc does
// (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html).
const NoDevices = "void"

// Objects are the ConfigMaps and Secrets that pods of this node refer to. An
// object that does not exist is an error for which apierrors.IsNotFound holds.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Facts are what a container is told besides what its pod object says.
type Facts struct {
	// PodIPs and HostIPs, the preferred one first.
	PodIPs, HostIPs []string
	// ClusterDomain is that of the cluster's DNS, which full host names end in.
	ClusterDomain string
	// ServiceEnv are the variables of Services, see ServiceEnv.
	ServiceEnv map[string]string
	// Allocatable of the node: what a limit that is not set counts as.
	Allocatable corev1.ResourceList
}

// Hostname is the host name that a pod has by Kubernetes' rules: spec.hostname or
// else its name, cut to what a host name may be.
func Hostname(pod *corev1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if pod.Spec.HostnameOverride != nil {
		name = *pod.Spec.HostnameOverride
	}
	const most = 63
	if len(name) > most {
		name = name[:most]
	}
	return strings.TrimRight(name, "-.")
}

// PodCgroup is the cgroup of one pod below parent: PARENT/podUID, or where parent
// is a systemd slice, a slice of it. An empty parent gives none.
func PodCgroup(parent string, uid types.UID) string {
	if parent == "" {
		return ""
	}
	if slice, ok := strings.CutSuffix(path.Base(parent), ".slice"); ok {
		// In a slice's name a dash separates levels.
		name := slice + "-pod" + strings.ReplaceAll(string(uid), "-", "_") + ".slice"
		return path.Join(parent, name)
	}
	return path.Join(parent, "pod"+string(uid))
}

// LogPath of a container, below its pod's LogDirectory: CONTAINER/ATTEMPT.log.
func LogPath(container string, attempt uint32) string {
	return path.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// LogDirectory is ROOT/NAMESPACE_NAME_UID, the kubelet's layout below
// /var/log/pods, which log collectors look for.
func LogDirectory(root string, pod *corev1.Pod) string {
	return path.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}
