package statuswriter

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

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/podtest"
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

// received is what comes from a channel that is sent something soon.
func received[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(time.Minute):
		require.FailNow(t, "nothing came")
		panic("not reached")
	}
}

// The API is away for an hour while statuses come and go: it is asked every ten seconds,
// hears the last status alone when it is back, and of the next one at once.
func TestAStatusOverAnHourWithoutTheAPI(t *testing.T) {
	t.Parallel()
	pod := podtest.Pod("", "app")
	client := fake.NewClientset(pod)
	var away atomic.Bool
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, apierrors.NewServiceUnavailable("away")
	})
	clock := &waits{begun: make(chan time.Duration), end: make(chan time.Time)}
	written := make(chan string, 10)
	s := New(client, clock, func(p *corev1.Pod) { written <- p.Status.Message })
	s.Observe(pod)
	go s.Run(t.Context())
	want := func(message string) { // without having it tried at once, as Set does
		s.mu.Lock()
		defer s.mu.Unlock()
		s.want = &corev1.PodStatus{Message: message}
	}

	away.Store(true)
	s.Set(corev1.PodStatus{Message: "first"})
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
	s.Set(corev1.PodStatus{Message: "later"})
	require.Equal(t, backoff.RetryFirst, received(t, clock.begun), "the trouble of the past is past")
	away.Store(false)
	clock.end <- time.Time{}
	require.Equal(t, "later", received(t, written))
	require.Empty(t, written)
}

// An API server before 1.36 drops how devices are: it is not sent that for ever.
func TestAnAPIServerThatKnowsNoDevices(t *testing.T) {
	t.Parallel()
	pod := podtest.Asking(podtest.Pod("", "x"), "x", 1)
	pod.ResourceVersion = "1"
	client := fake.NewClientset(pod)
	writes := 0
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		writes++
		answer := pod.DeepCopy()
		answer.ResourceVersion = "2"
		answer.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "x"}}
		return true, answer, nil
	})
	w := New(client, clock.RealClock{}, func(*corev1.Pod) {})
	w.Observe(pod)
	for range 3 {
		w.Set(corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "x", AllocatedResourcesStatus: []corev1.ResourceStatus{{Name: contract.GPUResource}},
		}}})
		require.NoError(t, w.writeLatest(t.Context()))
	}
	require.Equal(t, 1, writes)
}
