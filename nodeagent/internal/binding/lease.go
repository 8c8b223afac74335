package binding

import (
	"bytes"
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
	// leaveTime is how long the end of an agent may be held up by a hub that is silent.
	leaveTime = 2 * time.Second
)

// claimer holds the Lease of the node's name on the hub for this machine.
type claimer struct {
	hub    kubernetes.Interface
	node   string
	holder string
	clock  clock.Clock

	// hubTime is when the hub answered last, by its own clock; zero where it did not
	// say.
	hubTime func() time.Time

	// seen and since are the last renewal of another machine and when we saw it:
	// its clock may be off, or ours, so that only its standing still counts.
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
	if _, err = leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
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
	identity.SayRenews(lease)
}

// leave takes back what this agent has said of itself in the Lease, which the machine
// keeps: until the agent that starts next has renewed it, that may be an older one. ctx has
// ended; an agent that is killed says nothing.
func (c *claimer) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	leases := c.hub.CoordinationV1().Leases(contract.SystemNamespace)
	lease, err := leases.Get(ctx, identity.HubLease(c.node), metav1.GetOptions{})
	if err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") == c.holder && identity.Renews(lease) {
		delete(lease.Annotations, contract.RenewsAnnotation)
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write the lease of %q at the end: %w", c.node, err)
	}
	return nil
}

// expired reports whether another's lease has run out: once it has stood still before
// our eyes for its duration. Neither machine's clock is asked for that, for a copy
// whose clock runs ahead would take the lease from the machine that renews it.
//
// A machine that has just started need not look that long if the hub itself took the
// last renewal in long ago. Both times are the hub's: the one that it dated the
// lease's fields with, and the one that it answers with. Where it has several API
// servers these are two clocks, hence the wide margin.
func (c *claimer) expired(lease *coordinationv1.Lease) bool {
	if lease.Spec.RenewTime == nil {
		return true
	}
	written, now := renewed(lease), c.hubTime()
	if !written.IsZero() && !now.IsZero() && now.Sub(written) > 3*leaseDuration {
		return true
	}
	if !lease.Spec.RenewTime.Time.Equal(c.seen.Time) {
		c.seen, c.since = *lease.Spec.RenewTime, c.clock.Now()
		return false
	}
	return c.clock.Since(c.since) >= leaseDuration
}

// renewed is when the hub took the last renewal in; zero where it does not say.
func renewed(lease *coordinationv1.Lease) (at time.Time) {
	for _, m := range lease.ManagedFields {
		// An API server dates the entry anew with every change of its fields.
		if m.Time != nil && m.Time.After(at) && m.FieldsV1 != nil && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:renewTime"`)) {
			at = m.Time.Time
		}
	}
	return at
}
