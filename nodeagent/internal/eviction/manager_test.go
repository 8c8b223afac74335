package eviction

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// node is a machine with pods that end at once.
type node struct {
	*Manager
	readings  Readings
	pods      []candidate
	unknown   error
	measured  []string
	ended     map[types.UID]podstatus.Verdict
	reclaim   func()
	reclaimed int
	images    int  // of these, also images
	elsewhere bool // images are on a disk of their own
	events    *record.FakeRecorder
	asked     []string // who was to be evicted, in order
	leaving   []string // end already, in their own time
	stuck     []string // have no time left, and yet do not end
}

func newNode(t *testing.T, pods ...candidate) *node {
	t.Helper()
	n := &node{pods: pods, readings: Readings{}, ended: map[types.UID]podstatus.Verdict{}, events: record.NewFakeRecorder(10), reclaim: func() {}}
	thresholds, err := Parse(Default)
	require.NoError(t, err)
	clock := testclock.NewFakeClock(start)
	n.Manager = New(Options{
		Gauge: NewGauge(func(context.Context) Readings { return n.readings }, thresholds, clock), Pods: n, Recorder: n.events, Clock: clock,
		Reclaim: func(_ context.Context, images bool) error {
			n.reclaimed++
			if images {
				n.images++
			}
			n.reclaim()
			return nil
		},
		OneDisk: func(context.Context) bool { return !n.elsewhere },
		Node:    func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} },
	})
	return n
}

func (n *node) Active() (active []*corev1.Pod) {
	for _, c := range n.pods {
		if _, over := n.ended[c.pod.UID]; !over {
			active = append(active, c.pod)
		}
	}
	return active
}

func (n *node) Usage(_ context.Context, measure func(*corev1.Pod) bool) (all []stats.PodStats, err error) {
	for _, c := range n.pods {
		if c.used == nil {
			continue
		}
		if measure(c.pod) {
			n.measured = append(n.measured, c.pod.Name)
		}
		all = append(all, *c.used)
	}
	return all, n.unknown
}

func (n *node) Evict(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours, sooner bool) {
	if n.asked = append(n.asked, string(uid)); slices.Contains(n.stuck, string(uid)) {
		return make(chan struct{}), false, false
	}
	ended := make(chan struct{})
	close(ended)
	n.ended[uid] = verdict
	return ended, !slices.Contains(n.leaving, string(uid)), true
}

func TestOneIsEvictedAtATime(t *testing.T) {
	t.Parallel()
	n := newNode(t,
		pod("critical", systemCritical, "0", "0", &uses{memory: 900}),
		pod("modest", 0, "50Mi", "0", &uses{memory: 40}), pod("greedy", 100, "50Mi", "0", &uses{memory: 60}))
	require.Empty(t, n.look(t.Context()))
	n.readings[MemoryAvailable] = Reading{50 << 20, 1 << 30}
	require.Len(t, n.look(t.Context()), 1)
	verdict := n.ended["greedy"]
	require.Equal(t, Reason, verdict.Reason)
	require.Contains(t, verdict.Message, "Threshold quantity: 100Mi, available: 50Mi. Container main was using 60Mi")
	require.True(t, verdict.Disruption)
	require.Equal(t, time.Second, *verdict.Grace)
	require.Equal(t, "Warning EvictionThresholdMet Attempting to reclaim memory", <-n.events.Events)
	require.Contains(t, <-n.events.Events, "Warning Evicted The node was low on resource: memory.")

	require.Len(t, n.look(t.Context()), 1)
	require.Contains(t, n.ended, types.UID("modest"))
	require.Empty(t, n.look(t.Context()), "critical pods stay")
	require.Len(t, n.ended, 2)
	require.Empty(t, n.measured, "disk does not matter")
	require.Zero(t, n.reclaimed)
}

func TestWhatNobodyNeedsGoesFirst(t *testing.T) {
	t.Parallel()
	n := newNode(t, pod("p", 0, "0", "0", &uses{volume: 60}))
	n.readings[ImageFsAvailable] = Reading{14, 100}
	n.reclaim = func() { n.readings[ImageFsAvailable] = Reading{15, 100} }
	require.Empty(t, n.look(t.Context()))
	require.Equal(t, 1, n.reclaimed)
	require.Empty(t, n.ended)

	n.readings[ImageFsAvailable], n.reclaim = Reading{14, 100}, func() {}
	require.Len(t, n.look(t.Context()), 1)
	require.Equal(t, []string{"p"}, n.measured)
	require.Contains(t, n.ended["p"].Message, "low on resource: ephemeral-storage. Threshold quantity: 15, available: 14")
}

func TestImagesOnAnotherDiskStay(t *testing.T) {
	t.Parallel()
	n := newNode(t, pod("p", 0, "0", "0", &uses{volume: 60}))
	n.elsewhere = true
	n.readings[NodeFsAvailable] = Reading{9, 100}
	require.Len(t, n.look(t.Context()), 1)
	require.Equal(t, 1, n.reclaimed)
	require.Zero(t, n.images)
	n.readings = Readings{ImageFsAvailable: {14, 100}}
	n.look(t.Context())
	require.Equal(t, 1, n.images)
}

func TestNobodyIsEvictedBlindly(t *testing.T) {
	t.Parallel()
	n := newNode(t, pod("p", 0, "0", "0", &uses{memory: 60}))
	n.readings[MemoryAvailable] = Reading{1, 1 << 30}
	n.unknown = errors.New("the runtime is away")
	require.Empty(t, n.look(t.Context()))
	require.Empty(t, n.ended)
}

func TestWhoIsOverHisLimitGoes(t *testing.T) {
	t.Parallel()
	over, within := pod("over", 0, "0", "0", &uses{logs: 9}), pod("within", 0, "0", "0", &uses{logs: 1})
	for _, c := range []candidate{over, within} {
		c.pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("5Mi")}
	}
	n := newNode(t, over, within, pod("free", 0, "0", "0", &uses{logs: 99}))
	require.Len(t, n.overLimit(t.Context()), 1)
	require.Equal(t, "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ", n.ended["over"].Message)
	require.False(t, n.ended["over"].Disruption, "that is the pod's own fault")
	require.ElementsMatch(t, []string{"over", "within"}, n.measured, "only who has a limit is measured")
}

// Of a pod that ends already the grace is cut, which is no eviction; if it has none left,
// the next one goes.
func TestPodsThatEndAlready(t *testing.T) {
	t.Parallel()
	n := newNode(t, pod("modest", 0, "50Mi", "0", &uses{memory: 40}), pod("leaving", 0, "0", "0", &uses{memory: 60}), pod("stuck", 0, "0", "0", &uses{memory: 70}))
	n.leaving, n.stuck = []string{"leaving"}, []string{"stuck"}
	n.readings[MemoryAvailable] = Reading{50 << 20, 1 << 30}
	require.Len(t, n.look(t.Context()), 1)
	require.Equal(t, []string{"stuck"}, n.asked, "what it holds may be enough")
	<-n.events.Events
	require.Len(t, n.look(t.Context()), 1)
	require.Equal(t, []string{"stuck", "stuck", "leaving"}, n.asked)
	require.Equal(t, time.Second, *n.ended["leaving"].Grace)
	require.Len(t, n.events.Events, 1, "that the machine is short of something")

	require.Len(t, n.look(t.Context()), 1)
	require.Equal(t, []string{"stuck", "stuck", "leaving", "stuck", "modest"}, n.asked)
	require.Empty(t, n.look(t.Context()))
}

// Else who is over its limit and does not end would be looked at without a pause.
func TestWhoIsOverHisLimitAndDoesNotEnd(t *testing.T) {
	t.Parallel()
	over := pod("over", 0, "0", "0", &uses{logs: 9})
	over.pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("5Mi")}
	n := newNode(t, over)
	n.stuck = []string{"over"}
	require.Empty(t, n.overLimit(t.Context()))
	require.Equal(t, []string{"over"}, n.asked)
	require.Empty(t, n.events.Events)
}
