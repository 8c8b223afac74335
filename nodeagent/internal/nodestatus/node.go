// Package nodestatus keeps the Node object of a bound machine true: its labels and
// taint at registration, and while bound its conditions, addresses, capacity and
// Lease.
package nodestatus

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// operandsLabel keeps the GPU operator from deploying its DaemonSets to the node
// (gpu-operator controllers/state_manager.go).
const operandsLabel = "nvidia.com/gpu.deploy.operands"

// Facts are what a Node object is made of.
type Facts struct {
	Name string
	// Epoch of the credential and Holder, the machine that holds the name's Lease.
	Epoch   int64
	Holder  string
	Machine machine.Identity
	// Address is the node's; Port the kubelet API's.
	Address string
	Port    int32
	// PodCIDR is the range of the pods' addresses; empty: they share the node's.
	PodCIDR string
	// Capacity of the machine, and what of it pods may have.
	Capacity, Allocatable corev1.ResourceList
	// GPULabels describe the cards under GPU feature discovery's names.
	GPULabels map[string]string
	Simulated bool
	// BindLabels were chosen at bind.
	BindLabels map[string]string
	// KubeletVersion must parse as a Kubernetes version: tools compare minors.
	KubeletVersion string
	// Runtime is the container runtime as CRI names it, for example
	// containerd://2.4.2.
	Runtime string
}

// labels are the Node's labels: the contract's win over what was chosen at bind.
func labels(f Facts) map[string]string {
	l := maps.Clone(f.BindLabels)
	if l == nil {
		l = map[string]string{}
	}
	maps.Copy(l, f.GPULabels)
	maps.Copy(l, map[string]string{
		contract.NodeLabel:        contract.NodeLabelValue,
		contract.TypeLabel:        contract.TypeLabelValue,
		contract.NodeNameLabel:    f.Name,
		operandsLabel:             "false",
		corev1.LabelHostname:      f.Name,
		corev1.LabelArchStable:    f.Machine.Arch,
		corev1.LabelOSStable:      f.Machine.OS,
		"beta.kubernetes.io/arch": f.Machine.Arch,
		"beta.kubernetes.io/os":   f.Machine.OS,
	})
	if f.Simulated {
		l[contract.SimulatedLabel] = "true"
	}
	return l
}

func annotations(f Facts) map[string]string {
	return map[string]string{
		contract.BindEpochAnnotation: strconv.FormatInt(f.Epoch, 10),
		contract.MachineAnnotation:   f.Holder,
	}
}

// node is the Node as it is registered. The taint has to be on it from the start:
// a node may not change its own taints later (NodeRestriction). It has no
// providerID, so that no cloud controller takes it for one of its machines. Its range
// of pods is on it from the start too: it can't be changed later, and a controller
// manager that allots ranges (--allocate-node-cidrs) leaves a Node alone that has one.
func node(f Facts, status corev1.NodeStatus) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: f.Name, Labels: labels(f), Annotations: annotations(f)},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{contract.Taint()}},
		Status:     status,
	}
	if f.PodCIDR != "" {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = f.PodCIDR, []string{f.PodCIDR}
	}
	return n
}

// foreign reports whether a Node of our name is not one that an agent registered.
func foreign(n *corev1.Node) bool {
	return n.Annotations[contract.BindEpochAnnotation] == ""
}
