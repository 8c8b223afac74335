package server

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// lookEvery is the pause between two looks at the Lease.
const lookEvery = 5 * time.Second

var errRestored = errors.New("the cluster's store was restored from a backup: begin anew, with what it holds now")

// restored ends the program when the cluster's store has been restored from a backup. A
// watch goes on where it stood, and tells nothing before the store has come to that version
// again: until then no request for a certificate would be seen. The replicas' Lease is
// written every few seconds, and is older then than it was.
type restored struct {
	client    kubernetes.Interface
	namespace string
	every     time.Duration
}

// NeedLeaderElection says no to the manager: every replica has watches.
func (r *restored) NeedLeaderElection() bool { return false }

// Start looks until ctx ends; it fails when the store was restored.
func (r *restored) Start(ctx context.Context) error {
	seen := ""
	err := wait.PollUntilContextCancel(ctx, r.every, true, func(ctx context.Context) (bool, error) {
		lease, err := r.client.CoordinationV1().Leases(r.namespace).Get(ctx, leaseName, metav1.GetOptions{})
		if err != nil {
			return false, nil // not there yet, or nobody answers: that says nothing
		}
		older, err := resourceversion.CompareResourceVersion(lease.ResourceVersion, seen)
		if err == nil && older < 0 {
			return false, errRestored
		}
		seen = lease.ResourceVersion
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}
