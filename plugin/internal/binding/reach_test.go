package binding

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// over is a time that is up when a test says so.
type over struct {
	context.Context
	up chan struct{}
}

func (o over) Done() <-chan struct{} { return o.up }

func (o over) Err() error {
	select {
	case <-o.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// slow is a clock by which everything took so much longer.
type slow struct {
	clock.RealClock
	by time.Duration
}

func (s slow) Since(t time.Time) time.Duration { return s.RealClock.Since(t) + s.by }

// What the API server meets on its way to a node decides what the person is told to look
// at: the address where it comes to nothing, the certificate where it comes to one.
func TestWhatIsToldOfANodeThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	trying := func(what string) error {
		return apierrors.NewServiceUnavailable("error trying to reach service: " + what)
	}
	see := "See what the API server meets there:  kubectl get --raw /api/v1/nodes/ai-1/proxy/healthz"
	another := "Or bind it at another of its addresses, 10.0.0.5:  kubectl ainode unbind ai-1 && kubectl ainode bind ai-1 --to prod --address ADDRESS"
	again := "The binding goes on by itself; wait for it again:  kubectl ainode bind ai-1 --to prod"
	csr := "See its certificate requests:  kubectl get csr"
	for name, c := range map[string]struct {
		answers []error // the time is up in the last of them
		worker  string
		says    []string
		never   string
		lines   []string
		slow    time.Duration // what each call took
	}{
		"nobody routes it": {
			[]error{trying("dial tcp 10.9.0.5:10250: connect: no route to host"), context.DeadlineExceeded}, "10.0.0.2",
			[]string{
				"port 10250: error trying to reach service: dial tcp 10.9.0.5:10250: connect: no route to host\n",
				"\n  the API server does not reach 10.9.0.5 (far from the cluster's other nodes, such as 10.0.0.2), the address that it was bound with: " +
					"it has to be routed to the machine, with port 10250 open\n",
			},
			"certificate", []string{see, another, again}, 0,
		},
		"nothing comes back, ever": {
			[]error{context.DeadlineExceeded}, "10.9.3.1",
			[]string{"\n  nothing came back from 10.9.0.5, the address that it was bound with: it has to be routed to the machine, with port 10250 open\n"},
			"far from", []string{see, another, again}, time.Minute,
		},
		"it was hardly asked": {
			[]error{context.DeadlineExceeded}, "10.9.3.1",
			[]string{"there was no time left to ask it", "is its serving certificate approved, can the API server reach its address?"},
			"nothing came back", []string{csr, again}, 0,
		},
		"nobody listens": {
			[]error{trying("dial tcp 10.9.0.5:10250: connect: connection refused"), context.DeadlineExceeded}, "10.0.0.2",
			[]string{"nobody listens at 10.9.0.5: the agent does not, or the address is another machine's"},
			"routed", []string{"Look at it on the machine:  ainode-agent doctor; journalctl -u ainode-agent -n 50", again}, 0,
		},
		"the API server itself is not reached": {
			[]error{&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, context.DeadlineExceeded}, "10.0.0.2",
			[]string{"is its serving certificate approved, can the API server reach its address?", "connection refused"},
			"routed", []string{csr, again}, 0,
		},
		"its certificate is not taken": {
			[]error{trying("tls: failed to verify certificate: x509: certificate signed by unknown authority"), context.DeadlineExceeded}, "10.0.0.2",
			[]string{"is its serving certificate approved?", "x509: certificate signed by unknown authority"},
			"routed", []string{csr, again}, 0,
		},
		"something else": {
			[]error{trying("EOF"), context.DeadlineExceeded}, "10.0.0.2",
			[]string{"is its serving certificate approved, can the API server reach its address?", "EOF"},
			"routed", []string{csr, again}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{})
			x.other(t, func(r *v1alpha1.AINode) {
				r.Spec.Address, r.Status.Address, r.Status.Addresses = "10.9.0.5", "10.9.0.5", []string{"10.0.0.5", "10.9.0.5"}
			})
			node, err := x.target.CoreV1().Nodes().Get(t.Context(), "ai-1", metav1.GetOptions{})
			require.NoError(t, err)
			node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			require.NoError(t, x.target.Tracker().Update(corev1.SchemeGroupVersion.WithResource("nodes"), node, ""))
			require.NoError(t, x.target.Tracker().Add(&corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "worker"},
				Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: c.worker}}},
			}))
			ctx := over{t.Context(), make(chan struct{})}
			asked := 0
			x.Target.Probe = func(context.Context, string) error {
				if asked++; asked == len(c.answers) {
					close(ctx.up)
				}
				return c.answers[min(asked, len(c.answers))-1]
			}
			x.Timeout, x.Clock = time.Hour, slow{clock.RealClock{}, c.slow}
			err = x.Wait(ctx, &Plan{Request: Request{Node: "ai-1", Config: "prod", Address: "10.9.0.5"}, address: "10.9.0.5"}, 4)
			require.ErrorContains(t, err, "in phase [4/4]: the node does not answer the API server on port 10250")
			for _, says := range c.says {
				require.ErrorContains(t, err, says)
			}
			require.NotContains(t, err.Error(), c.never)
			require.Equal(t, c.lines, remedy.Lines(err))
			require.False(t, errors.Is(err, context.Canceled))
		})
	}
}
