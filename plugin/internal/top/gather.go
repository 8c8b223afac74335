package top

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/plugin/internal/kube"
)

// patience is how long one node may take.
const patience = 10 * time.Second

// atOnce is how many nodes are asked at a time.
const atOnce = 16

// Gather reads the cards of the target's AI nodes, or of those that are named. A node
// that can't be read says why; err is for what concerns all.
func Gather(ctx context.Context, target *kube.Cluster, names []string) ([]Node, error) {
	list, err := target.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeLabel + "=" + contract.NodeLabelValue})
	if err != nil {
		return nil, err
	}
	var nodes []Node
	for i := range list.Items {
		n := &list.Items[i]
		if len(names) == 0 || slices.Contains(names, n.Name) {
			nodes = append(nodes, Node{Name: n.Name, Simulated: n.Labels[contract.SimulatedLabel] == "true", Health: health(n)})
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == name }) {
			nodes = append(nodes, Node{Name: name, Problem: "it is no AI node of this cluster"})
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	turn := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range nodes {
		if nodes[i].Problem != "" {
			continue
		}
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			nodes[i].read(ctx, target)
		})
	}
	all.Wait()
	return nodes, ctx.Err()
}

func (n *Node) read(ctx context.Context, target *kube.Cluster) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	metrics, err := target.NodeMetrics(ctx, n.Name)
	if err == nil {
		n.Cards, err = Parse(metrics)
	}
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		n.Problem = `you may not get nodes/proxy; the chart's ClusterRole "ainode-top" grants it`
	case errors.Is(err, context.DeadlineExceeded):
		n.Problem = fmt.Sprintf("it has not answered for %s", patience)
	default:
		n.Problem = err.Error()
	}
}

// health is what the Node says of its cards, if not all is well.
func health(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == contract.GPUsUsableCondition && c.Status != corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}
