// Package nodes says how AI nodes stand, in words and tables, from their records
// and the Leases of their agents.
package nodes

import (
	"bytes"
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// What readers show besides the record's own bind states.
const (
	// Lost: the agent has ceased to renew its Lease.
	Lost = "Lost"
	// Forced: unbound without its machine, which has not said since that it stopped what it
	// ran: it may run on.
	Forced = "Forced"
	// CredentialInvalid: bound, and the target refuses the agent's credential. Its pods
	// run on; a new one is made by renew.
	CredentialInvalid = "CredentialInvalid"
	// NotJoined: no machine has joined under this name yet.
	NotJoined = "NotJoined"
)

// Sign is the last sign of life of an agent.
type Sign struct {
	// Known is false where the Leases can't be read: then nobody is called lost.
	Known bool
	// Seen is when the Lease was renewed last; zero for never.
	Seen time.Time
	// Life is how long a renewal counts.
	Life time.Duration
	// Written is when the hub took that renewal in, by its own clock, to a second;
	// zero where it does not say. Seen is by the machine's.
	Written time.Time
	// Renews is true if the agent knows renewals of its credential.
	Renews bool
}

// SignOf reads a Lease; nil is one that nobody has taken.
func SignOf(lease *coordinationv1.Lease) Sign {
	s := Sign{Known: true, Life: 40 * time.Second}
	if lease == nil {
		return s
	}
	if seconds := ptr.Deref(lease.Spec.LeaseDurationSeconds, 0); seconds > 0 {
		s.Life = time.Duration(seconds) * time.Second
	}
	if lease.Spec.RenewTime != nil && ptr.Deref(lease.Spec.HolderIdentity, "") != "" {
		s.Seen = lease.Spec.RenewTime.Time
	}
	s.Renews = identity.Renews(lease)
	for _, m := range lease.ManagedFields {
		if m.Time != nil && m.FieldsV1 != nil && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:renewTime"`)) {
			s.Written = m.Time.Time // an API server dates the entry with every change of its fields
		}
	}
	return s
}

// Alive reports whether the agent is, as far as can be known.
func (s Sign) Alive(now time.Time) bool {
	return !s.Known || !s.Seen.IsZero() && now.Sub(s.Seen) <= s.Life
}

// Signs reads the agents' Leases, by node. The hub is asked once for all.
func Signs(ctx context.Context, hub *kube.Cluster) (map[string]Sign, error) {
	leases, err := hub.Core.CoordinationV1().Leases(contract.SystemNamespace).List(ctx,
		metav1.ListOptions{LabelSelector: contract.NodeNameLabel})
	if err != nil {
		return nil, fmt.Errorf("read the agents' leases: %w", err)
	}
	signs := map[string]Sign{}
	for i := range leases.Items {
		lease := &leases.Items[i]
		if node := lease.Labels[contract.NodeNameLabel]; lease.Name == identity.HubLease(node) {
			signs[node] = SignOf(lease)
		}
	}
	return signs, nil
}

// ListRights are what showing all nodes needs on the hub.
func ListRights() []preflight.Right {
	return append(signRights(), preflight.Right{Verb: "list", Group: contract.Group, Resource: "ainodes"})
}

// DescribeRights are what showing one node needs on the hub.
func DescribeRights(node string) []preflight.Right {
	return append(signRights(), preflight.Right{Verb: "get", Group: contract.Group, Resource: "ainodes", Name: node})
}

func signRights() []preflight.Right {
	return []preflight.Right{{Verb: "list", Group: "coordination.k8s.io", Resource: "leases", Namespace: contract.SystemNamespace}}
}

// Status is the one word that tells how a node stands.
func Status(record *v1alpha1.AINode, sign Sign, now time.Time) string {
	switch {
	case record.Status.PublicKey == "":
		return NotJoined
	case forced(record):
		return Forced
	case !sign.Alive(now):
		return Lost
	case record.Status.BindStatus == "":
		return string(v1alpha1.Unbound)
	case record.Status.BindStatus == v1alpha1.Bound && meta.IsStatusConditionFalse(record.Status.Conditions, v1alpha1.ConditionCredentialValid):
		return CredentialInvalid
	default:
		return string(record.Status.BindStatus)
	}
}

// forced reports whether somebody has said in the machine's place that it has let go.
func forced(record *v1alpha1.AINode) bool {
	return record.Spec.ClusterConfigName == "" && record.Status.BindStatus == v1alpha1.Unbound &&
		meta.IsStatusConditionTrue(record.Status.Conditions, v1alpha1.ConditionForced)
}

// Outdated reports whether the machine serves a later binding than the record knows:
// the hub has been restored from a backup.
func Outdated(record *v1alpha1.AINode) bool {
	return record.Status.ObservedEpoch > record.Spec.BindEpoch
}

// EndLost reports whether the machine goes by an end of its binding that the record has
// lost, for the same reason: status.binding has it.
func EndLost(record *v1alpha1.AINode) bool {
	ready := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionReady)
	return record.Status.Binding != nil && ready != nil && ready.Reason == v1alpha1.ReasonRecordOutdated
}

// AddressMissing reports whether the machine lacks the address that its binding is served
// at, by its own word. An agent says so only where nothing else is wrong with it.
func AddressMissing(record *v1alpha1.AINode) bool {
	ready := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionReady)
	return record.Spec.ClusterConfigName != "" && ready != nil && ready.Status == metav1.ConditionFalse && ready.Reason == v1alpha1.ReasonAddressMissing
}

// Renewing reports whether the record wants a newer credential of its binding than the
// agent acts with.
func Renewing(record *v1alpha1.AINode) bool {
	s := record.Status
	return record.Spec.ClusterConfigName != "" && s.ObservedEpoch >= record.Spec.FirstEpoch() && s.ObservedEpoch < record.Spec.BindEpoch &&
		(s.BindStatus == v1alpha1.Bound || s.BindStatus == v1alpha1.Draining)
}
