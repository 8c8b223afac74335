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
	case kube.Refused(last):
		return fmt.Sprintf("nobody listens at %s: the agent does not, or the address is another machine's", p.address),
			[]step{{"Look at it on the machine", "ainode-agent doctor; journalctl -u ainode-agent -n 50"}}
	case !kube.Unreached(last):
		return "is its serving certificate approved, can the API server reach its address?", requests
	}
	met := "the API server does not reach"
	if errors.Is(last, context.DeadlineExceeded) {
		met = "nothing came back from"
	}
	why = fmt.Sprintf("%s %s%s, the address that it was bound with: it has to be routed to the machine, with port 10250 open",
		met, p.address, nodes.FarOff(p.address, w.neighbours(ctx, p)))
	next = []step{{"See what the API server meets there", "kubectl get --raw /api/v1/nodes/" + p.Node + "/proxy/healthz"}}
	if record == nil {
		return why, next
	}
	others := slices.DeleteFunc(slices.Clone(record.Status.Addresses), func(a string) bool { return a == p.address })
	if len(others) > 0 {
		next = append(next, step{"Or bind it at another of its addresses, " + strings.Join(others, ", "), nodes.BoundAnew(record)})
	}
	return why, next
}

// neighbours are the addresses of the target's other nodes; none where they can't be read.
func (w *Walk) neighbours(ctx context.Context, p *Plan) []netip.Addr {
	members, err := w.Target.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	return nodes.Neighbours(members.Items, p.Node)
}
