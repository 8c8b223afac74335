package binding

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/e2e/story"
)

// testOneRange binds two nodes with one range at the same time: each has found it free
// before either has written. One gets it, the other is told and takes its own back.
func (s *stage) testOneRange(t *testing.T) {
	for _, m := range []machine{s.one, s.two} {
		s.awaitListed(t, m, "Unbound") // the hub was restored: its Leases are old ones until they are renewed
	}
	both := make(chan struct{})
	var came atomic.Int32
	kubeconfig := s.behind(t, &gate{hold: func(r *http.Request) {
		if r.Method != http.MethodPut || path.Base(path.Dir(r.URL.Path)) != "ainodes" {
			return // it does not claim anything
		}
		if came.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(patience):
		}
	}})
	type end struct {
		m   machine
		err error
	}
	ends := make(chan end, 2)
	for _, m := range []machine{s.one, s.two} {
		go func() {
			args := []string{"bind", m.node, "--to", s.b.name, "--pod-cidr", s.one.PodCIDR, "--wait=false"}
			_, err := s.a.Run(t.Context(), "kubectl-ainode", append(args, s.clusters(kubeconfig, s.b)...)...)
			ends <- end{m, err}
		}()
	}
	won, lost := <-ends, <-ends
	if won.err != nil {
		won, lost = lost, won
	}
	require.NoError(t, won.err)
	var failed *story.Failed
	require.True(t, errors.As(lost.err, &failed), "both have the range")
	require.Contains(t, failed.Stderr, "it overlaps "+s.one.PodCIDR+`, the range of AI node "`+won.m.node+`"`)
	require.Equal(t, s.one.PodCIDR, s.record(t, won.m).Spec.PodCIDR)
	require.Equal(t, []string{won.m.node}, s.boundNodes(t, s.b))
	eventually(t, "the other's agent has seen that it is not bound", func() error {
		if record := s.record(t, lost.m); record.Status.ObservedEpoch != record.Spec.BindEpoch {
			return fmt.Errorf("it is %+v", record.Status.BindStatus)
		}
		return nil
	})
	s.requireNothing(t, lost.m, s.b)
	s.unbind(t, won.m, s.b)
	s.requireNothing(t, won.m, s.b)
}
