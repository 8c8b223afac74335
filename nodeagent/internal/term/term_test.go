package term

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

const patience = time.Minute

// node is a node with a pod that may be evicted, and one that a budget keeps.
type node struct {
	*Manager
	t      *testing.T
	known  *Known
	clock  *testingclock.FakeClock
	events *record.FakeRecorder

	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod
	evicted map[types.UID]int
	ended   map[types.UID]podstatus.Verdict
	ends    int // how often a pod was told to end
	over    map[types.UID]chan struct{}
	silent  bool // the target drops packets
	asked   int  // how often the hub was
	hub     func() (time.Time, bool)
}

// newNode is one whose binding ends at eight, with ten minutes of grace; it is now.
func newNode(t *testing.T, now time.Time) *node {
	t.Helper()
	n := &node{
		t: t, known: &Known{}, clock: testingclock.NewFakeClock(now), events: record.NewFakeRecorder(1000),
		evicted: map[types.UID]int{}, ended: map[types.UID]podstatus.Verdict{}, over: map[types.UID]chan struct{}{},
		pods: map[types.UID]*corev1.Pod{},
	}
	for _, name := range []string{"goes", "kept"} {
		n.pods[types.UID(name)] = &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name)},
			Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](60)},
		}
	}
	n.hub = func() (time.Time, bool) { return n.clock.Now(), true }
	n.Manager = New(Options{
		Known: n.known, HubTime: n.hubTime, Evict: n.evict, Clock: n.clock,
		Node: func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} },
	})
	n.known.Set(End{eight, 10 * time.Minute})
	return n
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, n, n.events) }()
	n.t.Cleanup(func() { cancel(); require.NoError(n.t, <-done) })
}

func (n *node) hubTime() (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return n.hub()
}

func (n *node) evict(ctx context.Context, pod *corev1.Pod) error {
	if n.silent {
		<-ctx.Done()
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.evicted[pod.UID]++
	if pod.Name == "kept" {
		return apierrors.NewTooManyRequests("budget", 0)
	}
	delete(n.pods, pod.UID) // it is gone at once
	return nil
}

func (n *node) Active() []*corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*corev1.Pod
	for _, pod := range n.pods {
		all = append(all, pod.DeepCopy())
	}
	return all
}

func (n *node) End(uid types.UID, verdict podstatus.Verdict) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended[uid] = verdict
	n.ends++
	if n.over[uid] == nil {
		n.over[uid] = make(chan struct{})
	}
	return n.over[uid]
}

// dies is that nothing of the pod lives any more.
func (n *node) dies(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, uid)
	close(n.over[uid])
}

func (n *node) Flush(context.Context) error { return nil }

// until turns the clock on, a little at a time, until ok.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		n.mu.Lock()
		done := ok()
		n.mu.Unlock()
		if !done && n.clock.HasWaiters() {
			n.clock.Step(time.Second)
		}
		return done
	}, patience, time.Millisecond, what)
}

// stands waits until the manager has looked at this time.
func (n *node) stands(at time.Time, ok func() bool) {
	n.t.Helper()
	// It waits by a time that it has read: one set before it waits would pass unnoticed.
	require.Eventually(n.t, n.clock.HasWaiters, patience, time.Millisecond)
	n.clock.SetTime(at)
	require.Eventually(n.t, ok, patience, time.Millisecond)
}

func (n *node) said(text string) bool {
	for {
		select {
		case event := <-n.events.Events:
			if strings.Contains(event, text) {
				return true
			}
		default:
			return false
		}
	}
}

// The whole way: told, evicted again and again, ended in time to be over at the end.
func TestABindingEndsInTime(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(-3*time.Hour))
	n.run()
	require.False(t, n.Full())
	n.stands(eight.Add(-time.Hour), func() bool { return n.said("pods are evicted from 2026-11-27T07:50:00Z on") })
	require.False(t, n.Full())
	require.Empty(t, n.NotReady())
	reason, _ := n.Admit(nil)
	require.Empty(t, reason)

	n.stands(eight.Add(-10*time.Minute), n.Full)
	require.True(t, n.known.Leaving() || n.Full())
	require.Empty(t, n.NotReady(), "those that are left still serve")
	reason, message := n.Admit(nil)
	require.Equal(t, "BindingEnds", reason)
	require.Contains(t, message, "2026-11-27T08:00:00Z")
	n.until("evicted, and tried again", func() bool { return n.evicted["goes"] == 1 && n.evicted["kept"] >= 3 })
	require.Empty(t, n.ended, "it is not time")
	n.until("ended by the node", func() bool { _, ok := n.ended["kept"]; return ok })
	verdict := n.ended["kept"]
	require.Equal(t, "BindingEnded", verdict.Reason)
	require.True(t, verdict.Disruption)
	require.InDelta(t, time.Minute, *verdict.Grace, float64(2*time.Second), "its own grace, and over at eight")
	require.NotContains(t, n.ended, types.UID("goes"))

	n.stands(eight, func() bool { return n.NotReady() != "" })
	require.False(t, n.known.Finished(), "a process is left")
	n.dies("kept")
	n.until("finished", n.known.Finished)
	n.mu.Lock()
	require.Equal(t, 1, n.ends, "once is enough, though it had not ended at once")
	n.mu.Unlock()
	require.False(t, n.said("Pod is given back"), "it was ending already")
}

// A pod that ends by an end that was later gets no more time than the new one leaves.
func TestAnEarlierEnd(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(-3*time.Hour))
	n.pods["goes"].Spec.TerminationGracePeriodSeconds = ptr.To[int64](600)
	n.run()
	n.stands(eight.Add(-10*time.Minute), n.Full)
	n.until("ended", func() bool { return n.ended["goes"].Grace != nil })
	n.mu.Lock()
	require.InDelta(t, 10*time.Minute, *n.ended["goes"].Grace, float64(10*time.Second))
	n.mu.Unlock()
	n.known.Set(End{eight.Add(-5 * time.Minute), 10 * time.Minute})
	n.until("hastened", func() bool { return *n.ended["goes"].Grace < 6*time.Minute })
}

// A machine that slept over the end ends everything at once when it wakes.
func TestAMachineThatSlept(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(-3*time.Hour))
	n.run()
	n.stands(eight.Add(time.Hour), func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.ended) == 2 })
	require.Zero(t, *n.ended["goes"].Grace)
	require.Empty(t, n.evicted)
}

// Two clocks that are apart end nothing before both say that it is time.
func TestTheClockThatIsBehindDecides(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"the machine's": 3 * time.Hour, "the hub's": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behind := eight.Add(-2 * time.Hour)
			n := newNode(t, behind.Add(max(ahead, 0)))
			n.hub = func() (time.Time, bool) { return n.clock.Now().Add(-ahead), true }
			n.run()
			n.until("looked at", func() bool { return n.asked >= 3 })
			require.False(t, n.Full(), "at an hour after the end by the other")
			at := eight.Add(-10 * time.Minute).Add(max(ahead, 0)) // the machine's
			n.clock.SetTime(at.Add(-every - time.Second))
			n.mu.Lock()
			require.Empty(t, n.ended)
			require.Empty(t, n.evicted)
			n.mu.Unlock()
			n.stands(at, n.Full)
			n.until("ended", func() bool { _, ok := n.ended["kept"]; return ok })
			require.InDelta(t, time.Minute, *n.ended["kept"].Grace, float64(2*time.Second), "its grace, by the clock that decides")
		})
	}
}

// A machine whose clock nobody has borne out since it booted takes nothing away.
func TestAClockThatNobodyBearsOut(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(time.Hour))
	n.hub = func() (time.Time, bool) { return time.Time{}, false }
	n.run()
	n.until("looked at", func() bool { return n.asked >= 3 })
	require.False(t, n.Full())
	require.Empty(t, n.NotReady())
	n.mu.Lock()
	require.Empty(t, n.ended)
	require.Empty(t, n.evicted)
	n.hub = func() (time.Time, bool) { return n.clock.Now().Add(time.Minute), true }
	n.mu.Unlock()
	n.until("borne out", func() bool { return len(n.ended) == 2 })
}

// A target that drops packets delays no pod's end: those that are due are ended first, and
// the others are not asked for one after another.
func TestATargetThatDropsPackets(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(-3*time.Hour))
	for i := range 20 {
		uid := types.UID("more-" + string(rune('a'+i)))
		n.pods[uid] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(uid), UID: uid}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](1)}}
	}
	n.silent = true
	n.run()
	n.stands(eight.Add(-10*time.Minute), n.Full)
	began := time.Now()
	n.clock.SetTime(eight.Add(-time.Minute))
	n.until("both with a minute's grace ended", func() bool { return len(n.ended) >= 2 })
	require.Less(t, time.Since(began), 10*ask, "of more than twenty questions, each given up after three seconds")
}

// A later end, while pods are sent away: those left stay, and others come again.
func TestALaterEnd(t *testing.T) {
	t.Parallel()
	n := newNode(t, eight.Add(-3*time.Hour))
	n.run()
	n.stands(eight.Add(-10*time.Minute), n.Full)
	n.until("evicted", func() bool { return n.evicted["kept"] > 0 })
	n.known.Set(End{eight.Add(8 * time.Hour), 10 * time.Minute})
	require.Eventually(t, func() bool { return !n.Full() }, patience, time.Millisecond)
	reason, _ := n.Admit(nil)
	require.Empty(t, reason)
	require.False(t, n.known.Leaving())
	n.known.Set(End{})
	n.stands(eight.Add(24*time.Hour), func() bool { return n.clock.HasWaiters() })
	require.False(t, n.Full(), "none at all")
	require.Empty(t, n.ended)
}
