package pods

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
)

// waits is a clock whose waits the test sees, and ends.
type waits struct {
	clock.Clock
	begun chan time.Duration
	end   chan time.Time
}

func (w *waits) After(d time.Duration) <-chan time.Time {
	w.begun <- d
	return w.end
}

// The API is away for an hour while statuses come and go: it is asked every ten seconds,
// hears the last status alone when it is back, and of the next one at once.
func TestAStatusOverAnHourWithoutTheAPI(t *testing.T) {
	t.Parallel()
	pod := shell("app", obedient)
	client := fake.NewClientset(pod)
	var away atomic.Bool
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, apierrors.NewServiceUnavailable("away")
	})
	clock := &waits{begun: make(chan time.Duration), end: make(chan time.Time)}
	written := make(chan string, 10)
	s := newStatusWriter(client, clock, func(p *corev1.Pod) { written <- p.Status.Message })
	s.observe(pod)
	go s.run(t.Context())
	want := func(message string) { // without having it tried at once, as set does
		s.mu.Lock()
		defer s.mu.Unlock()
		s.want = &corev1.PodStatus{Message: message}
	}

	away.Store(true)
	s.set(corev1.PodStatus{Message: "first"})
	tries := 0
	for passed := time.Duration(0); passed < time.Hour; tries++ {
		passed += received(t, clock.begun)
		want("newer")
		if passed < time.Hour {
			clock.end <- time.Time{}
		}
	}
	require.InDelta(t, time.Hour/backoff.RetryLast, tries, 5)
	want("last")
	away.Store(false)
	clock.end <- time.Time{}
	require.Equal(t, "last", received(t, written))

	away.Store(true)
	s.set(corev1.PodStatus{Message: "later"})
	require.Equal(t, backoff.RetryFirst, received(t, clock.begun), "the trouble of the past is past")
	away.Store(false)
	clock.end <- time.Time{}
	require.Equal(t, "later", received(t, written))
	require.Empty(t, written)
}
