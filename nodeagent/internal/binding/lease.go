package binding

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

const (
	leaseDuration = 40 * time.Second
	leaseRenewal  = 10 * time.Second
)

// claimer holds the Lease of the node's name on the hub for this machine.
type claimer struct {
	hub    kubernetes.Interface
	node   string
	holder string
	clock  clock.Clock

	// seen and since are the last renewal of another machine and when we saw it:
	// its clock may be off, so that only its standing still counts.
	seen  metav1.MicroTime
	since time.Time
}

// claim takes or renews the Lease. An error says nothing about who holds it. other
// names the machine that holds it if the claim is Elsewhere.
func (c *claimer) claim(ctx context.Context) (state Claim, other string, err error) {
	leases := c.hub.CoordinationV1().Leases(contract.SystemNamespace)
	lease, err := leases.Get(ctx, identity.HubLease(c.node), metav1.GetOptions{})
	if err != nil {
		return Unclaimed, "", fmt.Errorf("read the lease of %q: %w", c.node, err)
	}
	if holder := ptr.Deref(lease.Spec.HolderIdentity, ""); holder != "" && holder != c.holder && !c.expired(lease) {
		return Elsewhere, holder, nil
	}
	c.take(lease)
	if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return Unclaimed, "", fmt.Errorf("renew the lease of %q: %w", c.node, err)
	}
	return Ours, "", nil
}

func (c *claimer) take(lease *coordinationv1.Lease) {
	now := metav1.NewMicroTime(c.clock.Now())
	if ptr.Deref(lease.Spec.HolderIdentity, "") != c.holder {
		lease.Spec.AcquireTime = &now
		lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
	}
	lease.Spec.HolderIdentity = ptr.To(c.holder)
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(leaseDuration / time.Second))
	lease.Spec.RenewTime = &now
}

// expired reports whether another's lease has run out: by its own time if that
// lies far enough back, and else once it has stood still before our eyes for the
// lease's duration.
func (c *claimer) expired(lease *coordinationv1.Lease) bool {
	now := c.clock.Now()
	if lease.Spec.RenewTime == nil {
		return true
	}
	if now.Sub(lease.Spec.RenewTime.Time) > 3*leaseDuration {
		return true
	}
	if !lease.Spec.RenewTime.Time.Equal(c.seen.Time) {
		c.seen, c.since = *lease.Spec.RenewTime, now
		return false
	}
	return now.Sub(c.since) >= leaseDuration
}
