package binding

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
)

// unanswered says what comes into question where a node does not answer the API server on
// port 10250, by the last answer: its address where that came to nothing, its certificate
// where it came to one.
func (w *Walk) unanswered(ctx context.Context, p *Plan, record *v1alpha1.AINode, last error) (why string, next []step) {
	requests := []step{{"See its certificate requests", "kubectl get csr"}}
	switch {
	case kube.Untrusted(last):
		return "is its serving certificate approved?", requests
	case !kube.Unreached(last):
		return "is its serving certificate approved, can the API server reach its address?", requests
	}
	met := "the API server does not reach"
	if errors.Is(last, context.DeadlineExceeded) {
		met = "nothing came back from"
	}
	why = fmt.Sprintf("%s %s, the address that it was bound with%s: it has to be routed to the machine, with port 10250 open", met, p.address, w.farOff(ctx, p))
	next = []step{{"See what the API server meets there", "kubectl get --raw /api/v1/nodes/" + p.Node + "/proxy/healthz"}}
	if record == nil {
		return why, next
	}
	others := slices.DeleteFunc(slices.Clone(record.Status.Addresses), func(a string) bool { return a == p.address })
	if len(others) > 0 {
		next = append(next, step{
			"Or bind it at another of its addresses, " + strings.Join(others, ", "),
			fmt.Sprintf("kubectl ainode unbind %s && kubectl ainode bind %s --to %s --address %s", p.Node, p.Node, p.Config, others[0]),
		})
	}
	return why, next
}

// farOff says that the machine's address is far from those of the target's nodes, where it
// is and they can be read.
func (w *Walk) farOff(ctx context.Context, p *Plan) string {
	addr, err := netip.ParseAddr(p.address)
	if err != nil {
		return ""
	}
	members, err := w.Target.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return ""
	}
	neighbours := nodes.Neighbours(members.Items, p.Node)
	if !nodes.Far(addr, neighbours) {
		return ""
	}
	return fmt.Sprintf(", far from those of the cluster's nodes (such as %s)", neighbours[0])
}
