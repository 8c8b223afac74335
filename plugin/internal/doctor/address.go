package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/plugin/internal/nodes"
)

// address judges the machine's address: it must be its own, and one that the
// cluster sends nowhere else.
func address(ctx context.Context, s *sight) (string, []flaw, error) {
	text := cmp.Or(s.Address, s.node.Spec.Address, s.node.Status.Address)
	if !s.joined() || text == "" && (s.Before || s.node.Spec.ClusterConfigName == "") {
		return "", nil, nil // it has not said yet
	}
	if nodes.AddressMissing(s.node) {
		return s.missing(cmp.Or(s.node.Spec.Address, s.node.Status.Address))
	}
	other := s.otherAddress(text)
	addr, err := netip.ParseAddr(text)
	if addr = addr.Unmap(); err != nil || !addr.IsGlobalUnicast() {
		return one(Error, fmt.Sprintf("%q is no address that a cluster could reach", text), "logs, exec and the pods themselves are reached at it", other)
	}
	records, err := s.records()
	if err != nil {
		return "", nil, err
	}
	for _, r := range records {
		if r.Name != s.node.Name && cmp.Or(r.Spec.Address, r.Status.Address) == text && r.Spec.ClusterConfigName != "" && !s.elsewhere(r.Spec.ClusterConfigName) {
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
	neighbours, err := s.neighbours()
	if err != nil {
		return "", nil, err
	}
	if others := familyOf(neighbours); others != "" && others != family(addr) {
		return one(Warning, fmt.Sprintf("%s is an %s address, and the cluster's nodes have %s addresses alone", text, family(addr), others),
			"the API server may have no way to it (logs, exec), and pods there none to those of other nodes", other)
	}
	free := text + ", which nobody else of the cluster has"
	if off := nodes.FarOff(text, neighbours); s.Before && off != "" { // of a bound node the check "serving" has tried
		return "", []flaw{{OK, free + off + ": see that the cluster's network is routed to it", "", nil}}, nil
	}
	return free, nil, nil
}

// missing is what is found where the machine says that it lacks the address it is served at.
func (s *sight) missing(text string) (string, []flaw, error) {
	whose, another := "which its agent began with", fix("Or have the agent take another (one that --node-ip names must be the machine's)", "systemctl restart ainode-agent")
	if s.node.Spec.Address != "" {
		whose, another = "chosen at bind", fix("Or bind it at another address", "%s", nodes.BoundAnew(s.node))
	}
	return one(Error, fmt.Sprintf("%s, %s, is not the machine's any more", text, whose), "its pods run on, but the cluster reaches neither them nor their logs",
		fix("On the machine, see what it has, and give it back", "ip address"), another)
}

// otherAddress is how the machine is reached at another of its addresses.
func (s *sight) otherAddress(text string) string {
	others := slices.DeleteFunc(slices.Clone(s.node.Status.Addresses), func(a string) bool { return a == text })
	if s.Before && len(others) > 0 {
		return fix("Choose another of the machine's addresses, which has "+some(others), "kubectl ainode bind %s --to CONFIG --address ADDRESS", s.node.Name)
	}
	if s.node.Spec.Address != "" {
		return fix("Bind it at another address", "%s", nodes.BoundAnew(s.node))
	}
	return fix("Give the agent the right one", "ainode-agent run --node-ip ADDRESS")
}

// neighbours are the addresses of the target's other nodes.
func (s *sight) neighbours() ([]netip.Addr, error) {
	members, err := s.members()
	if err != nil {
		return nil, err
	}
	return nodes.Neighbours(members, s.node.Name), nil
}

func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// familyOf is the one family that all are of; empty where there are both, or none.
func familyOf(all []netip.Addr) string {
	if len(all) == 0 || slices.ContainsFunc(all, func(a netip.Addr) bool { return a.Is4() != all[0].Is4() }) {
		return ""
	}
	return family(all[0])
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
