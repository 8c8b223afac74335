package identity

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

// SayRenews notes on an AI node's Lease, whose renewTime is set, that the agent which
// writes it knows renewals of its credential.
//
// An agent that knows none renews the Lease all the same, and leaves standing what a newer
// one has noted. Hence the note holds for one renewTime only: once a machine was given an
// older agent back, it is void with that one's first renewal, as what stands in a record's
// status is not.
func SayRenews(lease *coordinationv1.Lease) {
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, contract.RenewsAnnotation, lease.Spec.RenewTime.UTC().Format(metav1.RFC3339Micro))
}

// Renews reports whether the agent that has renewed a Lease last knows renewals. One that
// does not takes a new epoch for another binding, and ends every pod.
func Renews(lease *coordinationv1.Lease) bool {
	at := lease.Spec.RenewTime
	return at != nil && lease.Annotations[contract.RenewsAnnotation] == at.UTC().Format(metav1.RFC3339Micro)
}
