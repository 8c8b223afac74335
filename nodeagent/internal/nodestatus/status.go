package nodestatus

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/extendwebsocketstokubelet"

	"github.com/ainode/ainode/api/contract"
)

// Health is what was found wrong with the machine.
type Health struct {
	// NotReady says why no pod can run on it; empty if some can.
	NotReady string
	// Full says that no more pods are taken, while those there run on: the scheduler
	// sees no room for any. Ready stays true, or they would leave their Services and be
	// deleted without a question to their disruption budgets.
	Full bool
	// Pressures are what it is short of.
	Pressures []corev1.NodeConditionType
	// GPUs is nil where nobody looks after any.
	GPUs *GPUs
}

// status is the wanted status; have gives the transition times of what stays.
func status(f Facts, h Health, have corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	capacity, allocatable := f.Capacity, f.Allocatable
	if h.GPUs != nil {
		capacity, allocatable = counted(capacity, h.GPUs.Total), counted(allocatable, h.GPUs.Usable)
	}
	if h.Full {
		allocatable = maps.Clone(allocatable)
		allocatable[corev1.ResourcePods] = resource.Quantity{Format: resource.DecimalSI}
	}
	return corev1.NodeStatus{
		Capacity:    capacity,
		Allocatable: allocatable,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: f.Address},
			{Type: corev1.NodeHostName, Address: f.Name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: f.Port}},
		NodeInfo: corev1.NodeSystemInfo{
			MachineID:               f.Machine.ID,
			SystemUUID:              f.Machine.ProductUUID,
			BootID:                  f.Machine.BootID,
			KernelVersion:           f.Machine.Kernel,
			OSImage:                 f.Machine.OSImage,
			OperatingSystem:         f.Machine.OS,
			Architecture:            f.Machine.Arch,
			ContainerRuntimeVersion: f.Runtime,
			KubeletVersion:          f.KubeletVersion,
		},
		Conditions: conditions(f, h, have.Conditions, now),
		// The API server then leaves kubectl's WebSockets to the kubelet API.
		DeclaredFeatures: []string{extendwebsocketstokubelet.Feature.Name()},
	}
}

// conditions are the kubelet's, with its reasons: dashboards match on them.
// NetworkUnavailable is set here since no route controller knows this node.
func conditions(f Facts, h Health, have []corev1.NodeCondition, now time.Time) []corev1.NodeCondition {
	pick := func(kind corev1.NodeConditionType, problem string, onOK, onProblem corev1.ConditionStatus, okReason, okMessage, reason string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: onOK, Reason: okReason, Message: okMessage}
		if problem != "" {
			c.Status, c.Reason, c.Message = onProblem, reason, problem
		}
		c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
		for _, old := range have {
			if old.Type == kind && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		return c
	}
	reason, addresses := "HostNetwork", "pods share the node's address"
	if f.PodCIDR != "" {
		reason, addresses = "CNI", "pods have addresses of "+f.PodCIDR
	}
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	pressed := func(kind corev1.NodeConditionType, problem string) string {
		if slices.Contains(h.Pressures, kind) {
			return problem
		}
		return ""
	}
	all := []corev1.NodeCondition{
		pick(corev1.NodeNetworkUnavailable, "", no, yes, reason, addresses, ""),
		pick(corev1.NodeMemoryPressure, pressed(corev1.NodeMemoryPressure, "kubelet has insufficient memory available"), no, yes, "KubeletHasSufficientMemory", "kubelet has sufficient memory available", "KubeletHasInsufficientMemory"),
		pick(corev1.NodeDiskPressure, pressed(corev1.NodeDiskPressure, "kubelet has disk pressure"), no, yes, "KubeletHasNoDiskPressure", "kubelet has no disk pressure", "KubeletHasDiskPressure"),
		pick(corev1.NodePIDPressure, pressed(corev1.NodePIDPressure, "kubelet has insufficient PID available"), no, yes, "KubeletHasSufficientPID", "kubelet has sufficient PID available", "KubeletHasInsufficientPID"),
		pick(corev1.NodeReady, h.NotReady, yes, no, "KubeletReady", "kubelet is posting ready status", "KubeletNotReady"),
	}
	if h.GPUs != nil {
		all = append(all, h.GPUs.condition(have, now))
	}
	return all
}

// sameBut reports whether two statuses say the same, heartbeats aside, in what this
// room writes.
func sameBut(a, b corev1.NodeStatus) bool {
	strip := func(s corev1.NodeStatus) corev1.NodeStatus {
		kept := corev1.NodeStatus{
			Capacity: s.Capacity, Allocatable: s.Allocatable, Addresses: s.Addresses,
			DaemonEndpoints: s.DaemonEndpoints, NodeInfo: s.NodeInfo, Images: s.Images, VolumesInUse: s.VolumesInUse,
		}
		for _, c := range s.Conditions {
			if !ours(c.Type) {
				continue
			}
			c.LastHeartbeatTime = metav1.Time{}
			kept.Conditions = append(kept.Conditions, c)
		}
		return kept
	}
	x, y := strip(a), strip(b)
	if len(x.Conditions) != len(y.Conditions) {
		return false
	}
	for _, c := range x.Conditions {
		found := false
		for _, d := range y.Conditions {
			found = found || c.Type == d.Type && c.Status == d.Status && c.Reason == d.Reason && c.Message == d.Message
		}
		if !found {
			return false
		}
	}
	x.Conditions, y.Conditions = nil, nil
	return apiequality.Semantic.DeepEqual(x, y)
}

func ours(kind corev1.NodeConditionType) bool {
	switch kind {
	case corev1.NodeNetworkUnavailable, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady, contract.GPUsUsableCondition:
		return true
	}
	return false
}

// merged is have with what this room writes replaced by want's.
func merged(have, want corev1.NodeStatus) corev1.NodeStatus {
	out := *have.DeepCopy()
	out.Capacity, out.Allocatable, out.Addresses = want.Capacity, want.Allocatable, want.Addresses
	out.DaemonEndpoints = want.DaemonEndpoints
	out.NodeInfo, out.Images, out.VolumesInUse = want.NodeInfo, want.Images, want.VolumesInUse
	out.DeclaredFeatures = want.DeclaredFeatures // not in sameBut: servers before 1.36 drop it
	kept := want.Conditions
	for _, c := range have.Conditions {
		if !ours(c.Type) {
			kept = append(kept, c)
		}
	}
	out.Conditions = kept
	return out
}
