package contract

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The names that an AI node is known and chosen by. They stand as literals in this
// file alone; everything else (code, chart, policies, docs) takes or is checked
// against them.
const (
	// Group is the API group of our own records and the root of our own labels
	// and annotations.
	Group = "ainode.dev"

	// NodeLabel marks a Node as an AI node, and is what a pod selects.
	NodeLabel      = "alibabacloud.com/virtual-node"
	NodeLabelValue = "true"

	// TaintKey and TaintValue keep ordinary pods off an AI node (effect NoSchedule).
	TaintKey   = "virtual-kubelet.io/provider"
	TaintValue = "aliclouddb"

	// TypeLabel is what many DaemonSets exclude by, and what a cloud controller
	// reads as "the pods here have routable addresses of their own".
	TypeLabel      = "type"
	TypeLabelValue = "virtual-kubelet"

	// GPUResource is counted in whole cards, the same in limits and requests.
	GPUResource corev1.ResourceName = "nvidia.com/gpu"
	// MIGResourcePrefix begins the resource names of MIG slices, counted alike.
	MIGResourcePrefix = "nvidia.com/mig-"

	// OSSDriver is the CSI driver of the object storage that the vendor's page promises.
	OSSDriver = "ossplugin.csi.alibabacloud.com"

	// NodeNamePrefix begins the Node name of every AI node.
	NodeNamePrefix = "ai-"

	// ScheduleLabel opts a pod (or a namespace's GPU pods) in with "true"; "false"
	// on a pod wins over everything.
	ScheduleLabel = Group + "/schedule"
	// GPUsLabel puts that many GPUs into a pod's first container.
	GPUsLabel = Group + "/gpus"
	// AdmissionAnnotation holds the JSON list of what admission changed.
	AdmissionAnnotation = Group + "/admission"

	// SimulatedLabel is "true" on a Node whose GPUs are simulated.
	SimulatedLabel = Group + "/simulated-gpus"
	// GPUFaultCondition is the condition of a pod one of whose GPUs failed.
	GPUFaultCondition = Group + "/GPUFault"
	// GPUsUsableCondition is the condition of a Node that says how its GPUs are: False
	// names each that pods do not get, and why; Unknown says that their errors would
	// not be noticed. The scheduler reads status.allocatable and not this.
	GPUsUsableCondition corev1.NodeConditionType = "GPUsUsable"
	// MachineAnnotation names, on a Node, the machine that holds its Lease.
	MachineAnnotation = Group + "/machine"
	// BindEpochAnnotation is, on a Node and on all that bind makes in a target,
	// the bind epoch it belongs to.
	BindEpochAnnotation = Group + "/bind-epoch"
	// ReleasedEpochAnnotation is, on a Node, the bind epoch that its own agent has given
	// back: every pod of it is stopped on the machine. What stands for that epoch in
	// the target may go.
	ReleasedEpochAnnotation = Group + "/released-epoch"
	// RenewsAnnotation is, on an AI node's Lease of the hub, the renewTime that the same
	// write gave it, where the agent that wrote it can take a new credential of its
	// binding while pods run on.
	RenewsAnnotation = Group + "/renews-credentials"
	// AddressAnnotation is, on the ClusterRole that stands for a binding in a target,
	// the address that the AI node had when it was bound. Serving certificates are
	// approved for it alone; a node may not change it.
	AddressAnnotation = Group + "/address"
	// NodeNameLabel is, on all that add and bind make, the AI node they belong to.
	NodeNameLabel = Group + "/node"

	// SystemNamespace is where the webhook, the Leases and the identities live.
	SystemNamespace = "ainode-system"

	// ServiceAccountMountPath is where Kubernetes mounts service-account tokens.
	ServiceAccountMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// Taint is the taint that every AI node carries.
func Taint() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Value: TaintValue, Effect: corev1.TaintEffectNoSchedule}
}

// Toleration is the toleration that a pod needs to run on an AI node.
func Toleration() corev1.Toleration {
	return corev1.Toleration{
		Key: TaintKey, Operator: corev1.TolerationOpEqual, Value: TaintValue,
		Effect: corev1.TaintEffectNoSchedule,
	}
}

// IsNodeName reports whether name is one that an AI node may have.
func IsNodeName(name string) bool {
	return strings.HasPrefix(name, NodeNamePrefix) && len(name) > len(NodeNamePrefix)
}

// IsGPUResource reports whether name counts GPUs or MIG slices.
func IsGPUResource(name corev1.ResourceName) bool {
	return name == GPUResource || strings.HasPrefix(string(name), MIGResourcePrefix)
}

// GuardedNodeLabels are those that an AI node's own identity may set when it
// registers and never change: they say what it is, and who may send it traffic.
func GuardedNodeLabels() []string {
	return []string{
		NodeLabel, TypeLabel, NodeNameLabel,
		"node.kubernetes.io/exclude-from-external-load-balancers", "service.alibabacloud.com/exclude-node",
	}
}
