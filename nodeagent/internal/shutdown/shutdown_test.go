package shutdown

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

const patience = time.Minute

// node is a node with one critical pod and two others.
type node struct {
	*Manager
	t      *testing.T
	config string
	events *record.FakeRecorder
	dials  chan *net.UnixConn

	mu      sync.Mutex
	asked   []types.UID // who was told to end, in order
	verdict podstatus.Verdict
	over    map[types.UID]chan struct{}
	flushed int
	graces  map[types.UID]time.Duration
}

func newNode(t *testing.T, grace, critical time.Duration) *node {
	t.Helper()
	n := &node{
		t: t, config: filepath.Join(t.TempDir(), "logind.conf.d"), events: record.NewFakeRecorder(100),
		dials: make(chan *net.UnixConn, 10), over: map[types.UID]chan struct{}{}, graces: map[types.UID]time.Duration{},
	}
	for _, pod := range n.Active() {
		n.over[pod.UID] = make(chan struct{})
	}
	n.Manager = New(Options{
		Dial: func(ctx context.Context) (*dbus.Conn, error) {
			select {
			case end := <-n.dials:
				return dial(ctx, end)
			default:
				return nil, errors.New("no bus here")
			}
		},
		Grace: grace, Critical: critical, ConfigDir: n.config, Clock: clock.RealClock{},
		Node: func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} },
	})
	return n
}

func (n *node) Active() []*corev1.Pod {
	pod := func(name string, priority int32) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}}
	}
	return []*corev1.Pod{pod("critical", systemCritical), pod("a", 0), pod("b", 1000)}
}

func (n *node) End(uid types.UID, verdict podstatus.Verdict) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked, n.verdict, n.graces[uid] = append(n.asked, uid), verdict, *verdict.Grace
	return n.over[uid]
}

func (n *node) Flush(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flushed++
	return nil
}

// told waits until so many pods were told to end, and returns them: those after them have
// their turn soon.
func (n *node) told(count int) []types.UID {
	n.t.Helper()
	var asked []types.UID
	require.Eventually(n.t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		asked = slices.Clone(n.asked)
		return len(asked) >= count
	}, patience, time.Millisecond)
	return asked[:count]
}

// last is the verdict given last, and flushes how often the API was waited for.
func (n *node) last() (verdict podstatus.Verdict, flushes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.verdict, n.flushed
}

// grace is what that pod was given.
func (n *node) grace(uid types.UID) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.graces[uid]
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, n, n.events) }()
	n.t.Cleanup(func() { cancel(); require.NoError(n.t, <-done) })
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal(what)
	}
}

func seconds(n uint64) uint64 { return n * 1_000_000 } // in microseconds

func TestPodsEndBeforeTheMachine(t *testing.T) {
	t.Parallel()
	n := newNode(t, time.Hour, 20*time.Minute)
	system, end := start(t, seconds(3600), 0)
	n.dials <- end
	n.run()
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	require.Equal(t, []string{"shutdown delay"}, system.taken)
	require.Zero(t, system.hangups, "it waits long enough as it is")
	reason, _ := n.Admit(nil)
	require.Empty(t, reason)
	require.Empty(t, n.NotReady())
	gone := system.released(1)

	system.prepare(true)
	require.ElementsMatch(t, []types.UID{"a", "b"}, n.told(2))
	verdict, _ := n.last()
	require.Equal(t, podstatus.Verdict{
		Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown.",
		Grace: ptr.To(40 * time.Minute), Disruption: true,
	}, verdict)
	require.Equal(t, "node is shutting down", n.NotReady())
	reason, message := n.Admit(nil)
	require.Equal(t, "NodeShutdown", reason)
	require.Equal(t, "Pod was rejected as the node is shutting down.", message)
	wait(t, n.Changed(), "the node's status is to be written at once")
	require.Contains(t, <-n.events.Events, "Normal NodeShutdown")

	close(n.over["a"])
	close(n.over["b"])
	require.Equal(t, types.UID("critical"), n.told(3)[2])
	require.Equal(t, 20*time.Minute, n.grace("critical"))
	select {
	case <-gone:
		t.Fatal("the lock was let go before the last pod was over")
	default:
	}
	close(n.over["critical"])
	wait(t, gone, "the shutdown still waits")
	_, flushes := n.last()
	require.Equal(t, 1, flushes)

	// It was called off.
	system.prepare(false)
	require.Eventually(t, func() bool { return system.held() == 2 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return n.NotReady() == "" }, patience, time.Millisecond)
}

func TestAPodThatHangsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t, 200*time.Millisecond, 100*time.Millisecond)
	system, end := start(t, seconds(1), 0)
	n.dials <- end
	n.run()
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	system.prepare(true)
	require.Equal(t, types.UID("critical"), n.told(3)[2])
	wait(t, system.released(1), "the shutdown still waits")
}

func TestLogindIsMadeToWait(t *testing.T) {
	t.Parallel()
	n := newNode(t, 30*time.Second, 10*time.Second)
	system, end := start(t, seconds(5), seconds(30))
	n.dials <- end
	n.run()
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	require.Equal(t, 1, system.hangups)
	text, err := os.ReadFile(filepath.Join(n.config, dropIn))
	require.NoError(t, err)
	require.Contains(t, string(text), "[Login]\nInhibitDelayMaxSec=30\n")
	system.prepare(true)
	n.told(2)
	require.Equal(t, 20*time.Second, n.grace("a"))
}

func TestALogindThatDoesNotListenIsBelieved(t *testing.T) {
	t.Parallel()
	n := newNode(t, 30*time.Second, 10*time.Second)
	system, end := start(t, seconds(6), seconds(6))
	n.dials <- end
	n.run()
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	system.prepare(true)
	n.told(2)
	require.Equal(t, 4*time.Second, n.grace("a"), "two thirds of what there is")
}

func TestABrokenConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, time.Hour, time.Minute)
	n.run() // and finds no bus
	system, end := start(t, seconds(3600), 0)
	n.dials <- end
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	gone := system.released(1)
	require.NoError(t, system.conn.Close())
	wait(t, gone, "the lock of a lost connection is held")
	system, end = start(t, seconds(3600), 0)
	n.dials <- end
	require.Eventually(t, func() bool { return system.held() == 1 }, patience, time.Millisecond)
	system.prepare(true)
	n.told(2)
}

func TestWithoutGraceNothingIsDone(t *testing.T) {
	t.Parallel()
	n := newNode(t, 0, 0)
	ctx, cancel := context.WithCancel(t.Context())
	n.o.Dial = func(context.Context) (*dbus.Conn, error) {
		t.Error("nobody is to be asked")
		return nil, errors.New("no bus here")
	}
	cancel()
	require.NoError(t, n.Run(ctx, n, n.events))
}
