package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

// Case is what is to be examined.
type Case struct {
	Hub, Target *kube.Cluster
	Clock       clock.PassiveClock
	// Version is the plugin's own.
	Version string
	// Names are the AI nodes that are looked at; none is all of the pool, or Before all
	// that are not bound.
	Names []string
	// Before asks what speaks against binding Names, not how they do.
	Before bool
	// ExpectGPUs is how many cards each machine must have; 0 asks for any.
	ExpectGPUs int
	// Address is the one of the machine's that was chosen for a binding of one node.
	Address string
	// Excluded is true where load balancers are told to keep off the nodes.
	Excluded bool
	// Ignore are the ids of checks that are left out.
	Ignore []string
	// Again is the command that was typed, with more checks left out; for Preflight.
	Again func(checks []string) string
	// Rights and Plan are what bind itself asks before it begins: whether the person
	// may, and whether a node can be bound. Both only Before; nil asks for neither.
	Rights func(context.Context) error
	Plan   func(ctx context.Context, node string) error
}

// sight is what the checks of one examination see. Every list is read once, when
// the first check asks for it.
type sight struct {
	*Case
	records    func() ([]v1alpha1.AINode, error)
	configs    func() ([]v1alpha1.ClusterConfig, error)
	signs      func() (map[string]nodes.Sign, error)
	uid        func() (string, error)
	members    func() ([]corev1.Node, error) // the target's Nodes
	daemonSets func() ([]appsv1.DaemonSet, error)
	namespaces func() ([]corev1.Namespace, error)
	services   func() ([]corev1.Service, error)
	waiting    func() (waitingPods, error)

	// nodes are the records of those that are looked at.
	nodes []v1alpha1.AINode
	// node is the one that a check of area Node looks at, and away is why its part on
	// the target is not.
	node *v1alpha1.AINode
	away bool
	pods func() ([]corev1.Pod, error)
}

// open prepares the lists, and finds the nodes that the case names.
func (c *Case) open(ctx context.Context) (*sight, error) {
	core, every := c.Target.Core, metav1.ListOptions{}
	s := &sight{
		Case: c,
		records: once(ctx, func(ctx context.Context) ([]v1alpha1.AINode, error) {
			list, err := c.Hub.AINodes(ctx)
			if err != nil {
				return nil, fmt.Errorf("list AI nodes: %w", err)
			}
			return list.Items, nil
		}),
		configs: once(ctx, func(ctx context.Context) ([]v1alpha1.ClusterConfig, error) {
			list, err := c.Hub.ClusterConfigs(ctx)
			if err != nil {
				return nil, fmt.Errorf("list configs: %w", err)
			}
			return list.Items, nil
		}),
		signs: once(ctx, func(ctx context.Context) (map[string]nodes.Sign, error) { return nodes.Signs(ctx, c.Hub) }),
		uid:   once(ctx, c.Target.UID),
		members: once(ctx, func(ctx context.Context) ([]corev1.Node, error) {
			list, err := core.CoreV1().Nodes().List(ctx, every)
			return itemsOf(list, err, func(l *corev1.NodeList) []corev1.Node { return l.Items })
		}),
		daemonSets: once(ctx, func(ctx context.Context) ([]appsv1.DaemonSet, error) {
			list, err := core.AppsV1().DaemonSets(metav1.NamespaceAll).List(ctx, every)
			return itemsOf(list, err, func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items })
		}),
		namespaces: once(ctx, func(ctx context.Context) ([]corev1.Namespace, error) {
			list, err := core.CoreV1().Namespaces().List(ctx, every)
			return itemsOf(list, err, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items })
		}),
		services: once(ctx, func(ctx context.Context) ([]corev1.Service, error) {
			list, err := core.CoreV1().Services(metav1.NamespaceAll).List(ctx, every)
			return itemsOf(list, err, func(l *corev1.ServiceList) []corev1.Service { return l.Items })
		}),
		waiting: once(ctx, func(ctx context.Context) (waitingPods, error) { return readWaiting(ctx, c.Target) }),
	}
	records, err := s.records()
	if err != nil {
		return s, nil // the check "hub" says so
	}
	if len(c.Names) == 0 {
		for _, r := range records {
			if !c.Before || r.Spec.ClusterConfigName == "" {
				s.nodes = append(s.nodes, r)
			}
		}
		return s, nil
	}
	for _, name := range c.Names {
		at := slices.IndexFunc(records, func(r v1alpha1.AINode) bool { return r.Name == name })
		if at < 0 {
			return nil, nodes.Unknown(ctx, c.Hub, name)
		}
		s.nodes = append(s.nodes, records[at])
	}
	return s, nil
}

// of is the sight of one node; blind where the target can't be read.
func (s *sight) of(ctx context.Context, record v1alpha1.AINode, blind bool) *sight {
	one := *s
	one.node, one.away = &record, blind
	one.pods = podsOn(ctx, s.Target, record.Name)
	return &one
}

// name is the node's, empty where none is looked at.
func (s *sight) name() string {
	if s.node == nil {
		return ""
	}
	return s.node.Name
}

// podsOn reads the pods of one Node.
func podsOn(ctx context.Context, target *kube.Cluster, node string) func() ([]corev1.Pod, error) {
	return once(ctx, func(ctx context.Context) ([]corev1.Pod, error) {
		list, err := target.Core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
		})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
}

// once reads something when it is first asked for, and keeps the answer.
func once[T any](ctx context.Context, read func(context.Context) (T, error)) func() (T, error) {
	return sync.OnceValues(func() (T, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return read(ctx)
	})
}

func itemsOf[L any, T any](list L, err error, items func(L) []T) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return items(list), nil
}
