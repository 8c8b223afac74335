package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BindStatus is where an AI node stands on its walk
// Unbound → Binding → Bound → Draining → Unbinding → Unbound.
//
// +kubebuilder:validation:Enum=Unbound;Binding;Bound;Draining;Unbinding
type BindStatus string

// The bind states. "Lost" is none of them: readers compute it from the age of
// the agent's Lease on the hub, it is never stored.
const (
	Unbound   BindStatus = "Unbound"
	Binding   BindStatus = "Binding"
	Bound     BindStatus = "Bound"
	Draining  BindStatus = "Draining"
	Unbinding BindStatus = "Unbinding"
)

// Condition types of an AINode, written by its agent, but for Forced.
const (
	// ConditionReady is true while the agent runs and reaches its runtime and GPUs.
	ConditionReady = "Ready"
	// ConditionConflict is true when a second machine claims the same name.
	ConditionConflict = "Conflict"
	// ConditionCredentialValid is false when the target answers 401 to the agent.
	// Pods are kept: only the record itself can take a binding away.
	ConditionCredentialValid = "CredentialValid"
	// ConditionPodsAnswered is there where pods have addresses of their own. It is true
	// once the target has answered one of them, and false while it has not: the range
	// is not routed to the machine, or a firewall lies between.
	ConditionPodsAnswered = "PodsAnswered"
	// ConditionClockAgrees is there where the binding has an end (spec.until). While it
	// is false the machine's clock and the hub's differ by more than two minutes, and
	// the binding ends by the one that comes to its end later.
	ConditionClockAgrees = "ClockAgrees"
	// ConditionServingCertificate is true once the target has signed a certificate for the
	// node's own API (logs, exec), and false when nobody did and it serves with one of its
	// own. An API server that checks nodes' certificates refuses that.
	ConditionServingCertificate = "ServingCertificateSigned"
	// ConditionForced is true once somebody has ended a binding without its machine, which
	// was silent (kubectl ainode unbind --force), and false when the machine came back and
	// has stopped what it still ran of it. It goes with the next binding.
	ConditionForced = "Forced"
)

// Reasons of ConditionForced.
const (
	// ReasonUnboundByForce: the machine has not been heard of since.
	ReasonUnboundByForce = "UnboundByForce"
	// ReasonCameBack: the machine is back, and stops what it runs of that binding.
	ReasonCameBack = "MachineCameBack"
	// ReasonStopped: it has stopped all of it.
	ReasonStopped = "MachineStopped"
)

// ConflictLife is how long the holder of a name leaves another machine's complaint standing
// (ConditionConflict) before it takes it for settled; the other repeats it more often.
const ConflictLife = 2 * time.Minute

// ReasonRecordOutdated is that of a Ready condition which is false because the record was
// restored from a backup: status.binding, which the machine goes by, is newer.
const ReasonRecordOutdated = "RecordOutdated"

// ReasonAddressMissing is that of a Ready condition which is false because the machine
// lacks the address that the target reaches it at. Its pods are looked after.
const ReasonAddressMissing = "AddressMissing"

// AINode is one GPU machine of the pool. Its spec is what people want (written by
// kubectl ainode), its status is what the machine's agent says (written by it
// alone, save for a forced unbind of a machine that is gone).
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=ainodes,scope=Cluster,shortName=ain
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.bindStatus`
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterConfigName`
// +kubebuilder:printcolumn:name="IP",type=string,JSONPath=`.status.address`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.startsWith('ai-')",message="an AI node's name begins with ai-"
// +kubebuilder:validation:XValidation:rule="(has(oldSelf.spec) && has(oldSelf.spec.clusterConfigName) && oldSelf.spec.clusterConfigName.size() > 0) || !has(self.spec) || !has(self.spec.clusterConfigName) || self.spec.clusterConfigName.size() == 0 || !has(oldSelf.status) || !has(oldSelf.status.bindStatus) || oldSelf.status.bindStatus.size() == 0 || oldSelf.status.bindStatus == 'Unbound' || (has(oldSelf.spec) && has(oldSelf.status.observedEpoch) && oldSelf.spec.bindEpoch < oldSelf.status.observedEpoch && self.spec.bindEpoch == oldSelf.status.observedEpoch)",message="the AI node is still letting go of its last binding: finish that with kubectl ainode unbind"
// +kubebuilder:validation:XValidation:rule="!has(self.spec) || !has(oldSelf.spec) || self.spec.bindEpoch == oldSelf.spec.bindEpoch || (has(self.spec.clusterConfigName) && self.spec.clusterConfigName.size() > 0) || (has(oldSelf.status) && has(oldSelf.status.observedEpoch) && self.spec.bindEpoch == oldSelf.status.observedEpoch)",message="bindEpoch grows with a binding or its renewal alone, or to the epoch that the machine serves: kubectl ainode bind, kubectl ainode renew"
// +kubebuilder:validation:XValidation:rule="!has(self.spec) || !has(oldSelf.spec) || !has(self.spec.clusterConfigName) || self.spec.clusterConfigName.size() == 0 || !has(oldSelf.spec.clusterConfigName) || oldSelf.spec.clusterConfigName.size() == 0 || (has(self.spec.podCIDR) == has(oldSelf.spec.podCIDR) && (!has(self.spec.podCIDR) || self.spec.podCIDR == oldSelf.spec.podCIDR)) || (has(oldSelf.status) && has(oldSelf.status.observedEpoch) && oldSelf.spec.bindEpoch < oldSelf.status.observedEpoch && self.spec.bindEpoch == oldSelf.status.observedEpoch)",message="a bound AI node keeps its pods' range: unbind it to change it"
// +kubebuilder:validation:XValidation:rule="!has(self.spec) || !has(oldSelf.spec) || !has(self.spec.clusterConfigName) || self.spec.clusterConfigName.size() == 0 || !has(oldSelf.spec.clusterConfigName) || oldSelf.spec.clusterConfigName.size() == 0 || (has(self.spec.address) == has(oldSelf.spec.address) && (!has(self.spec.address) || self.spec.address == oldSelf.spec.address)) || (has(oldSelf.status) && has(oldSelf.status.observedEpoch) && oldSelf.spec.bindEpoch < oldSelf.status.observedEpoch && self.spec.bindEpoch == oldSelf.status.observedEpoch)",message="a bound AI node keeps its address: unbind it to change it"
type AINode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AINodeSpec   `json:"spec,omitempty"`
	Status AINodeStatus `json:"status,omitempty"`
}

// AINodeSpec is the wanted binding.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.clusterConfigName) || oldSelf.clusterConfigName.size() == 0 || !has(self.clusterConfigName) || self.clusterConfigName.size() == 0 || self.clusterConfigName == oldSelf.clusterConfigName",message="a bound AI node is bound elsewhere only after unbinding: kubectl ainode unbind"
// +kubebuilder:validation:XValidation:rule="self.bindEpoch >= oldSelf.bindEpoch",message="bindEpoch only grows"
// +kubebuilder:validation:XValidation:rule="!has(self.clusterConfigName) || self.clusterConfigName.size() == 0 || (has(self.sinceEpoch) ? self.sinceEpoch : self.bindEpoch) == ((!has(oldSelf.clusterConfigName) || oldSelf.clusterConfigName.size() == 0) ? self.bindEpoch : (has(oldSelf.sinceEpoch) ? oldSelf.sinceEpoch : oldSelf.bindEpoch))",message="a binding keeps the epoch that it began in (sinceEpoch): kubectl ainode renew leaves it"
type AINodeSpec struct {
	// ClusterConfigName names the ClusterConfig the node is to be bound under;
	// empty means unbound. Emptying it is the release: the agent stops every pod
	// of the epoch, wipes the credential, and then reports Unbound.
	//
	// +optional
	ClusterConfigName string `json:"clusterConfigName,omitempty"`

	// BindEpoch counts the credentials of this node: each bind adds one, and each
	// renewal. A credential and everything that bind makes in the target belong to one
	// epoch.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	BindEpoch int64 `json:"bindEpoch"`

	// SinceEpoch is the epoch that this binding began in: a renewal raises bindEpoch and
	// leaves it. It tells one binding from the next: an agent whose credential is of
	// another one stops every pod, and a pod sandbox is labelled with it. Absent, the
	// binding began in bindEpoch.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	SinceEpoch int64 `json:"sinceEpoch,omitempty"`

	// Draining is set by unbind while pods are evicted; the agent then reports
	// Draining instead of Bound.
	//
	// +optional
	Draining bool `json:"draining,omitempty"`

	// Labels of the target's Node besides the contract's (zone and region,
	// load-balancer mode). Chosen at bind.
	//
	// +optional
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`

	// PodCIDR is the range that the node's pods have addresses of, routed to the
	// machine (network mode cni). Empty: pods share the machine's address (mode host).
	// Chosen at bind.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked() && cidr(self).ip().family() == 4 && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 29",message="a range of IPv4 addresses such as 10.64.3.0/24, between /8 and /29"
	PodCIDR string `json:"podCIDR,omitempty"`

	// Address is the one of the machine's addresses (status.addresses) that the target
	// reaches it by. Empty: the one that its agent chooses. Chosen at bind.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="an IP address"
	Address string `json:"address,omitempty"`

	// Until is when the machine is free again: nothing of the binding runs from then
	// on, and the agent lets go by itself. Empty: when it is unbound. May be changed
	// while the node is bound.
	//
	// +optional
	Until *metav1.Time `json:"until,omitempty"`

	// DrainGrace is how long before Until no new pods come and those there are evicted.
	// What disruption budgets do not let go is ended by the node, in its own grace, so
	// that it is over at Until.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="not negative"
	DrainGrace *metav1.Duration `json:"drainGrace,omitempty"`
}

// FirstEpoch is the epoch that the binding began in, also where a record was made
// before there were renewals.
func (s *AINodeSpec) FirstEpoch() int64 {
	if s.SinceEpoch > 0 {
		return s.SinceEpoch
	}
	return s.BindEpoch
}

// AINodeStatus is what the agent reports.
type AINodeStatus struct {
	// +optional
	BindStatus BindStatus `json:"bindStatus,omitempty"`
	// ObservedEpoch is the epoch that bindStatus speaks of. While a renewal is under
	// way it is still that of the credential which the agent acts with.
	//
	// +optional
	ObservedEpoch int64 `json:"observedEpoch,omitempty"`
	// Binding is what the machine goes by, as it keeps it; absent without a binding. An
	// agent that does not know it leaves standing what a newer one wrote: whether an agent
	// knows renewals is told by its Lease.
	//
	// +optional
	Binding *ServedBinding `json:"binding,omitempty"`
	// Address is the machine's IP as the target's cluster reaches it. Its pods share
	// it, unless it was bound with a range (spec.podCIDR).
	//
	// +optional
	Address string `json:"address,omitempty"`
	// Addresses are all that the machine has and a cluster might reach, first the one that
	// its agent chooses where none was chosen at bind.
	//
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// GPUs are the machine's cards, in index order.
	//
	// +optional
	// +listType=map
	// +listMapKey=uuid
	GPUs []GPU `json:"gpus,omitempty"`
	// SimulatedGPUs names the simulated machine (dgxh200, …) where the cards are
	// not real; empty on real ones.
	//
	// +optional
	SimulatedGPUs string `json:"simulatedGPUs,omitempty"`
	// GPUsInUse is how many cards are given, whole or in slices, to pods whose processes
	// still live.
	//
	// +optional
	GPUsInUse int32 `json:"gpusInUse,omitempty"`
	// Capacity is what the Node reports or would report as its capacity.
	//
	// +optional
	Capacity map[string]resource.Quantity `json:"capacity,omitempty"`
	// PublicKey is the agent's X25519 public key (base64, 32 bytes). bind seals the
	// target credential to it, so that reading the hub's Secrets gives nobody a node.
	//
	// +optional
	PublicKey string `json:"publicKey,omitempty"`
	// Machine identifies the hardware and its boot.
	//
	// +optional
	Machine Machine `json:"machine,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ServedBinding is a binding as the machine keeps it. Once spec has been seen it says the
// same as that.
type ServedBinding struct {
	// SinceEpoch is the epoch that the binding began in.
	SinceEpoch int64 `json:"sinceEpoch"`
	// Until is when it ends; absent if it has no end.
	//
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
	// DrainGrace is how long before that pods begin to be sent away.
	//
	// +optional
	DrainGrace *metav1.Duration `json:"drainGrace,omitempty"`
	// PodCIDR is the range of its pods' addresses; absent if they share the machine's.
	//
	// +optional
	PodCIDR string `json:"podCIDR,omitempty"`
	// Address is the one that was chosen at bind; absent if none was.
	//
	// +optional
	Address string `json:"address,omitempty"`
}

// GPU is one card.
type GPU struct {
	// UUID as NVML gives it (GPU-…).
	UUID string `json:"uuid"`
	// Index is NVML's index on this machine.
	Index int32 `json:"index"`
	// Product is NVML's name of the card, for example "NVIDIA H200".
	Product string `json:"product"`
	// Memory of the card in bytes.
	Memory resource.Quantity `json:"memory"`
	// MIG says that the card is in MIG mode: it is given in slices, and to nobody whole.
	//
	// +optional
	MIG bool `json:"mig,omitempty"`
	// Slices that a card in MIG mode is cut into, in NVML's order.
	//
	// +optional
	// +listType=map
	// +listMapKey=uuid
	Slices []GPUSlice `json:"slices,omitempty"`
}

// GPUSlice is a MIG slice of a card.
type GPUSlice struct {
	// UUID as NVML gives it (MIG-…).
	UUID string `json:"uuid"`
	// Profile is NVIDIA's name of its kind, for example 1g.10gb.
	Profile string `json:"profile"`
}

// Machine identifies the hardware an agent runs on.
type Machine struct {
	// ID is /etc/machine-id.
	//
	// +optional
	ID string `json:"id,omitempty"`
	// ProductUUID is the DMI product UUID, where it can be read.
	//
	// +optional
	ProductUUID string `json:"productUUID,omitempty"`
	// BootID is the kernel's boot id.
	//
	// +optional
	BootID string `json:"bootID,omitempty"`
}

// AINodeList is a list of AINodes.
//
// +kubebuilder:object:root=true
type AINodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AINode `json:"items"`
}
