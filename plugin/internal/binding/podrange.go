package binding

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/podrange"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// keepRange takes over the range of a binding that is gone on with. Another one is
// refused: the pods that run have addresses of the first.
func (p *Plan) keepRange(record *v1alpha1.AINode) error {
	pods := rangeOf(record)
	if !p.Pods.IsZero() && p.Pods.String() != pods {
		has := "its pods share the machine's address"
		if pods != "" {
			has = "its pods have addresses of " + pods
		}
		return remedy.New("Unbind it to change that", "kubectl ainode unbind "+p.Node, "AI node %q is bound already, and %s", p.Node, has)
	}
	if pods == "" {
		return nil
	}
	var err error
	if p.Pods, err = podrange.Parse(pods); err != nil {
		return fmt.Errorf("the record of AI node %q has a damaged range of pods: %w", p.Node, err)
	}
	return nil
}

// rangeOf is the range that the node's pods have addresses of. After a restore of the hub
// the machine knows, and the record does not.
func rangeOf(record *v1alpha1.AINode) string {
	if nodes.Outdated(record) && record.Status.Binding != nil {
		return record.Status.Binding.PodCIDR
	}
	return record.Spec.PodCIDR
}

// taken is a range or an address that is somebody's already.
type takenRange struct {
	prefix netip.Prefix
	whose  string
}

// checkRange refuses a range that is not the pods' alone: two machines would answer
// at one address, or the cluster would send its own traffic to this one.
func (w *Walk) checkRange(ctx context.Context, p *Plan) error {
	if p.Pods.IsZero() {
		return nil
	}
	var all []takenRange
	onHub := func(ctx context.Context, p *Plan) ([]takenRange, error) { return w.takenOnHub(ctx, p) }
	for _, look := range []func(context.Context, *Plan) ([]takenRange, error){onHub, w.takenByNodes, w.takenByServices} {
		found, err := look(ctx, p)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	all = append(all, address(p.address, "the machine's own address")...)
	if server, err := url.Parse(p.config.Spec.Server); err == nil {
		all = append(all, address(server.Hostname(), "the API server's address")...)
	}
	if err := p.free(all); err != nil {
		return err
	}
	pods, err := w.takenByPods(ctx, p) // last: it reads the most
	if err != nil {
		return err
	}
	return p.free(pods)
}

// free refuses the plan's range if it overlaps one that is taken.
func (p *Plan) free(all []takenRange) error {
	for _, taken := range all {
		if p.Pods.Prefix().Overlaps(taken.prefix) {
			return remedy.New("Choose a range that is nobody's, and have it routed to "+p.address,
				"kubectl ainode bind "+p.Node+" --to "+p.Config+" --pod-cidr RANGE",
				"--pod-cidr %s can't be the pods' of AI node %q: it overlaps %s", p.Pods, p.Node, taken.whose)
		}
	}
	return nil
}

// checkFirst refuses a range that another bind has written into its record while this
// one was looking. version is that of the record with this one's own claim: what the
// hub held at that very version was written earlier. So of two that write at the same
// time one goes on, the one whose claim came first, and the other takes its own back.
func (w *Walk) checkFirst(ctx context.Context, p *Plan, version string) error {
	if p.Pods.IsZero() || w.DryRun {
		return nil
	}
	earlier, err := w.takenOnHub(ctx, p, &client.ListOptions{Raw: &metav1.ListOptions{
		ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact,
	}})
	if err != nil {
		return err
	}
	return p.free(earlier)
}

// takenOnHub are the ranges of other AI nodes of the same cluster, bound or on
// their way there. In another cluster, which has another network, one may be used
// again.
func (w *Walk) takenOnHub(ctx context.Context, p *Plan, options ...client.ListOption) ([]takenRange, error) {
	configs, err := w.Hub.ClusterConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list configs: %w", err)
	}
	same := map[string]bool{}
	for _, c := range configs.Items {
		same[c.Name] = c.Spec.ClusterUID == p.config.Spec.ClusterUID
	}
	records, err := w.Hub.AINodes(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("list AI nodes: %w", err)
	}
	var all []takenRange
	for _, r := range records.Items {
		if r.Name != p.Node && same[r.Spec.ClusterConfigName] {
			all = append(all, prefix(r.Spec.PodCIDR, fmt.Sprintf("%s, the range of AI node %q", r.Spec.PodCIDR, r.Name))...)
		}
	}
	return all, nil
}

// takenByNodes are the pods' ranges and the addresses of the target's nodes.
func (w *Walk) takenByNodes(ctx context.Context, p *Plan) ([]takenRange, error) {
	nodes, err := w.Target.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the target's nodes: %w", err)
	}
	var all []takenRange
	for _, n := range nodes.Items {
		if n.Name == p.Node {
			continue
		}
		for _, cidr := range append(n.Spec.PodCIDRs, n.Spec.PodCIDR) {
			all = append(all, prefix(cidr, fmt.Sprintf("%s, the range of node %q", cidr, n.Name))...)
		}
		for _, a := range n.Status.Addresses {
			all = append(all, address(a.Address, fmt.Sprintf("%s, an address of node %q", a.Address, n.Name))...)
		}
	}
	return all, nil
}

// takenByServices are the target's ranges of cluster IPs, where it shows them (they
// are objects since Kubernetes 1.33) and the person may see them. Elsewhere it is the
// addresses that Services have now, and the person is told that this is less.
func (w *Walk) takenByServices(ctx context.Context, p *Plan) ([]takenRange, error) {
	ranges, err := w.Target.Core.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return w.takenByEachService(ctx, p, err)
	}
	if err != nil {
		return nil, fmt.Errorf("list the target's ranges of Services: %w", err)
	}
	var all []takenRange
	for _, r := range ranges.Items {
		for _, cidr := range r.Spec.CIDRs {
			all = append(all, prefix(cidr, cidr+", the range of Services")...)
		}
	}
	return all, nil
}

// takenByEachService are the cluster IPs that Services have. Who may not list them
// may see the API server's own, mostly; why is why there are no ranges to go by.
func (w *Walk) takenByEachService(ctx context.Context, p *Plan, why error) ([]takenRange, error) {
	var all []takenRange
	take := func(s *corev1.Service) {
		for _, ip := range append(s.Spec.ClusterIPs, s.Spec.ClusterIP) {
			all = append(all, address(ip, fmt.Sprintf("%s, the address of Service %s/%s", ip, s.Namespace, s.Name))...)
		}
	}
	services := w.Target.Core.CoreV1().Services
	seen := "only the addresses that Services have now"
	err := eachOf(ctx, services(metav1.NamespaceAll).List, take)
	if apierrors.IsForbidden(err) {
		var own *corev1.Service
		seen = "only the address of Service default/kubernetes"
		if own, err = services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{}); err == nil {
			take(own)
		}
	}
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		seen, err = "nothing", nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the target's Services: %w", err)
	}
	w.Progress.Warn(p.Node, "the range of Services can't be seen, and so %s spoke against %s: %v. Does its API server's --service-cluster-ip-range lie elsewhere?",
		seen, p.Pods, why)
	return all, nil
}

// takenByPods are the addresses in the plan's range that pods have. Some networks
// (Calico, Cilium) give pods addresses that no Node tells. Those of the node itself
// are of an earlier binding.
func (w *Walk) takenByPods(ctx context.Context, p *Plan) ([]takenRange, error) {
	var all []takenRange
	err := eachOf(ctx, w.Target.Core.CoreV1().Pods(metav1.NamespaceAll).List, func(pod *corev1.Pod) {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if ended || pod.Spec.HostNetwork || pod.Spec.NodeName == p.Node {
			return
		}
		for _, ip := range pod.Status.PodIPs {
			for _, taken := range address(ip.IP, fmt.Sprintf("%s, the address of pod %s/%s", ip.IP, pod.Namespace, pod.Name)) {
				if p.Pods.Prefix().Overlaps(taken.prefix) { // of the others there are too many to keep
					all = append(all, taken)
				}
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list the target's pods: %w", err)
	}
	return all, nil
}

// eachOf goes over what list has, page by page.
func eachOf[L, T runtime.Object](ctx context.Context, list func(context.Context, metav1.ListOptions) (L, error), do func(T)) error {
	pages := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) })
	return pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		do(o.(T))
		return nil
	})
}

// prefix is the range that text is; nothing if it is none.
func prefix(text, whose string) []takenRange {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return nil
	}
	return []takenRange{{p, whose}}
}

// address is the address that text is; nothing if it is a name.
func address(text, whose string) []takenRange {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	return []takenRange{{netip.PrefixFrom(a, a.BitLen()), whose}}
}

// waitAnswered waits until the machine has tried whether the API server answers an
// address of its pods. That it does not is told and ends no binding: an API server
// may sit where it reaches nodes and no pods.
func (w *Walk) waitAnswered(ctx context.Context, p *Plan, epoch int64) error {
	record, err := kube.Until(ctx, w.Hub.WatchedAINode(p.Node), func(r *v1alpha1.AINode) (bool, error) {
		return r != nil && r.Status.ObservedEpoch == epoch && meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionPodsAnswered) != nil, nil
	})
	if err != nil {
		return err
	}
	if c := meta.FindStatusCondition(record.Status.Conditions, v1alpha1.ConditionPodsAnswered); c.Status != metav1.ConditionTrue {
		w.Progress.Warn(p.Node, "%s. Is %s routed to %s, and does a firewall lie between?", c.Message, p.Pods, p.address)
		return errTold
	}
	return nil
}
