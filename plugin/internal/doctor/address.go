package doctor

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// address judges the machine's address: it must be its own, and one that the
// cluster sends nowhere else.
func address(ctx context.Context, s *sight) (string, []flaw, error) {
	text := s.node.Status.Address
	if !s.joined() || text == "" && (s.Before || s.node.Spec.ClusterConfigName == "") {
		return "", nil, nil // it has not said yet
	}
	other := fix("Give the agent the right one", "ainode-agent run --node-ip ADDRESS")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast() {
		return one(Error, fmt.Sprintf("%q is no address that a cluster could reach", text), "logs, exec and the pods themselves are reached at it", other)
	}
	records, err := s.records()
	if err != nil {
		return "", nil, err
	}
	for _, r := range records {
		if r.Name != s.node.Name && r.Status.Address == text && r.Spec.ClusterConfigName != "" && !s.elsewhere(r.Spec.ClusterConfigName) {
			return one(Error, fmt.Sprintf("%s is AI node %s's address too", text, r.Name), "who is sent there is anybody's guess", other)
		}
	}
	if s.blind() {
		return text, nil, nil
	}
	whose, err := s.claims(ctx, addr)
	if err != nil {
		return "", nil, err
	}
	if whose != "" {
		return one(Error, fmt.Sprintf("%s is %s", text, whose), "the cluster sends what is meant for the machine there", other)
	}
	return text + ", which nobody else of the cluster has", nil, nil
}

// claims says who of the target has an address besides this node; empty is nobody.
func (s *sight) claims(ctx context.Context, addr netip.Addr) (string, error) {
	members, err := s.members()
	if err != nil {
		return "", err
	}
	within := func(cidr string) bool {
		p, err := netip.ParsePrefix(cidr)
		return err == nil && p.Contains(addr)
	}
	for _, n := range members {
		if n.Name == s.node.Name {
			continue
		}
		for _, a := range n.Status.Addresses {
			if (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && a.Address == addr.String() {
				return fmt.Sprintf("node %s's address too", n.Name), nil
			}
		}
		for _, cidr := range append(n.Spec.PodCIDRs, n.Spec.PodCIDR) {
			if within(cidr) {
				return fmt.Sprintf("in %s, from which the pods of node %s get theirs", cidr, n.Name), nil
			}
		}
	}
	// Objects since Kubernetes 1.33; who may not see them does without.
	ranges, err := s.Target.Core.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, r := range ranges.Items {
		for _, cidr := range r.Spec.CIDRs {
			if within(cidr) {
				return fmt.Sprintf("in %s, the cluster's range of Services", cidr), nil
			}
		}
	}
	return "", nil
}
