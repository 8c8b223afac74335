package pods

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// As when the machine shuts down.
func TestPodsThatTheNodeEnds(t *testing.T) {
	m := newMachine(t)
	m.start()
	// Its own grace is the shorter one, and long enough for it on any machine; the other
	// is deaf, and has less time than it would take.
	polite := shell("polite", "trap 'sleep 0.2; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
	polite.Spec.RestartPolicy = corev1.RestartPolicyAlways
	polite.Spec.TerminationGracePeriodSeconds = ptr.To(int64(patience / time.Second))
	deaf := shell("deaf", "trap '' TERM; while :; do sleep 1; done")
	deaf.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3600)
	m.create(polite)
	m.create(deaf)
	for _, name := range []string{"polite", "deaf"} {
		m.awaitPhase(name, corev1.PodRunning)
	}
	require.Len(t, m.manager.Active(), 2)
	m.awaitOutput("polite", "ready")

	verdict := podstatus.Verdict{
		Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown.", Disruption: true,
	}
	var over []<-chan struct{}
	for _, pod := range m.manager.Active() {
		verdict.Grace = ptr.To(time.Hour)
		if pod.Name == "deaf" {
			verdict.Grace = ptr.To(2 * time.Second)
		}
		over = append(over, m.manager.End(pod.UID, verdict))
	}
	for _, name := range []string{"polite", "deaf"} {
		pod := m.awaitPhase(name, corev1.PodFailed)
		require.Equal(t, "Terminated", pod.Status.Reason)
		require.Equal(t, verdict.Message, pod.Status.Message)
		require.True(t, slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "TerminationByKubelet"
		}))
		require.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
		code := map[string]int32{"polite": 3, "deaf": 137}[name]
		require.Equal(t, code, pod.Status.ContainerStatuses[0].State.Terminated.ExitCode)
	}
	require.NoError(t, m.manager.Flush(t.Context()))
	over = append(over, m.manager.End("nobody", verdict)) // there is none to wait for
	for _, ended := range over {                          // of what the next agent ends, this one tells nothing
		received(t, ended)
	}
	require.Empty(t, m.manager.Active())
	require.False(t, slices.ContainsFunc(m.events.list(), func(e string) bool { return strings.Contains(e, "Failed") }), m.events)

	// After the reboot they stay what they are.
	m.halt()
	m.start()
	for _, name := range []string{"polite", "deaf"} {
		m.awaitReleased(name)
		require.Equal(t, corev1.PodFailed, m.get(name).Status.Phase)
	}
	require.Empty(t, m.manager.Active())
}

// awaitReleased waits until the agent has seen that nothing of the pod lives: until then one
// that it has found counts, whatever the API says of it.
func (m *machine) awaitReleased(name string) {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		w := m.worker(name)
		if w == nil {
			return false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.released
	}, patience, wink)
}

// Who ends a pod that ends already cuts its grace, and no more: its reason stays.
func TestAnEndIsHastened(t *testing.T) {
	m := newMachine(t)
	m.start()
	pod := shell("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done")
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3600)
	m.create(pod)
	m.awaitOutput("deaf", "ready")
	end := func(reason string, grace *time.Duration) <-chan struct{} {
		return m.manager.End(pod.UID, podstatus.Verdict{Reason: reason, Message: "By " + reason + ".", Grace: grace})
	}
	over := end("BindingEnded", ptr.To(time.Hour))
	m.await("deaf", "ending", func(*corev1.Pod) bool { return strings.Contains(m.events.String(), "Normal Killing") })
	require.Len(t, m.manager.Active(), 1, "it may be what the machine is short for")
	end("Terminated", nil)
	end("Terminated", ptr.To(2*time.Hour))
	end("Terminated", ptr.To(time.Second))
	received(t, over)
	ended := m.awaitPhase("deaf", corev1.PodFailed)
	require.Equal(t, "BindingEnded", ended.Status.Reason)
	require.Equal(t, "By BindingEnded.", ended.Status.Message)
	require.EqualValues(t, 137, ended.Status.ContainerStatuses[0].State.Terminated.ExitCode)
	require.Empty(t, m.manager.Active())
}

// Who would give a pod that ends already more time than it has leaves it alone: its hook
// is not begun again.
func TestAnEndThatIsNoSooner(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("polite", "trap 'exit $(busybox wc -l < /hooks)' TERM; touch /hooks; while :; do sleep 0.05; done")
	pod.Spec.TerminationGracePeriodSeconds = ptr.To(int64(patience / time.Second))
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo begun >> /hooks; while [ ! -e /go ]; do sleep 0.05; done"}},
	}}
	m.create(pod)
	m.awaitPhase("polite", corev1.PodRunning)
	require.Eventually(t, func() bool { _, err := m.run(pod, "cat /hooks"); return err == nil }, patience, wink)
	end := func(reason string) <-chan struct{} {
		return m.manager.End(pod.UID, podstatus.Verdict{Reason: reason, Grace: ptr.To(time.Hour)})
	}
	end("BindingEnded")
	m.awaitSaid(pod, "cat /hooks", "begun")
	m.manager.End(pod.UID, podstatus.Verdict{Reason: "Terminated", Grace: ptr.To(30 * time.Minute)})
	over := end("Terminated")
	m.sh(pod, "touch /go")
	received(t, over)
	ended := m.awaitPhase("polite", corev1.PodFailed)
	require.EqualValues(t, 1, ended.Status.ContainerStatuses[0].State.Terminated.ExitCode, "how often its hook was begun")
	require.NotContains(t, m.events.String(), "FailedPreStopHook")
}

// ownEnd is when the pod's own grace is over; zero before it runs.
func (m *machine) ownEnd(name string) (end time.Time) {
	w := m.worker(name)
	if w == nil {
		return end
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ownEnd
}

// Whoever looks after a pod meanwhile, as another agent or the same with a renewed
// credential: its grace began when its deletion was obeyed.
func TestAGraceOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("deaf", "trap '' TERM; while :; do sleep 1; done"))
	m.awaitPhase("deaf", corev1.PodRunning)
	m.delete("deaf", 3600)
	runs := func() bool { return !m.ownEnd("deaf").IsZero() }
	require.Eventually(t, runs, patience, wink)
	before := m.ownEnd("deaf")
	m.halt()
	m.start()
	require.Eventually(t, runs, patience, wink)
	require.WithinDuration(t, before, m.ownEnd("deaf"), 0)
	m.end("deaf")
}

// offline is a worker without a machine, and its clock.
func offline(pod *corev1.Pod) (*worker, *testingclock.FakeClock) {
	clock := testingclock.NewFakeClock(time.Now())
	m := &Manager{o: Options{Clock: clock}, workers: map[types.UID]*worker{}}
	w := newWorker(m, pod.UID)
	w.pod, m.workers[pod.UID] = pod, w
	return w, clock
}

// The grace that the node gives counts from its order, however long the pod has been
// ending by then, and is no more than the pod's own.
func TestGraceOfAnOrder(t *testing.T) {
	t.Parallel()
	pod := shell("slow", "")
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](3600)
	w, clock := offline(pod)
	grace := func() time.Duration { return w.grace(&task{pod: pod}) }
	require.Equal(t, time.Hour, grace())
	clock.Step(20 * time.Minute)
	w.m.End(pod.UID, podstatus.Verdict{Reason: "Terminated", Grace: ptr.To(30 * time.Minute)})
	w.verdict = w.ordered
	require.Equal(t, 30*time.Minute, grace())
	clock.Step(20 * time.Minute)
	require.Equal(t, 10*time.Minute, grace())
	w.m.End(pod.UID, podstatus.Verdict{Reason: "Evicted", Grace: ptr.To(time.Second)})
	require.Equal(t, graceLeast, grace())

	w, clock = offline(pod)
	require.Equal(t, time.Hour, w.grace(&task{pod: pod}))
	clock.Step(50 * time.Minute)
	w.m.End(pod.UID, podstatus.Verdict{Reason: "Terminated", Grace: ptr.To(30 * time.Minute)})
	require.Equal(t, 10*time.Minute, w.grace(&task{pod: pod}), "its own is over sooner")
}

// Who evicts a pod learns whether it ends for that, and whether it ends sooner.
func TestWhatComesOfAnEviction(t *testing.T) {
	t.Parallel()
	evicted := podstatus.Verdict{Reason: "Evicted", Grace: ptr.To(time.Second)}
	for name, test := range map[string]struct {
		before       func(w *worker)
		sooner, ours bool
		reason       string
	}{
		"runs":                      {sooner: true, ours: true, reason: "Evicted"},
		"past its deadline":         {before: func(w *worker) { w.decide(&podstatus.Verdict{Reason: "DeadlineExceeded"}) }, sooner: true, reason: "DeadlineExceeded"},
		"ended by the node":         {before: func(w *worker) { w.m.End(w.uid, podstatus.Verdict{Reason: "Terminated", Grace: ptr.To(time.Hour)}) }, sooner: true, reason: "Terminated"},
		"failed by the API":         {before: func(w *worker) { w.pod.Status.Phase = corev1.PodFailed }, sooner: true},
		"evicted":                   {before: func(w *worker) { w.m.End(w.uid, evicted) }, reason: "Evicted"},
		"deleted, and as soon over": {before: func(w *worker) { w.ownEnd = w.m.o.Clock.Now() }, ours: true, reason: "Evicted"},
		"being buried":              {before: func(w *worker) { w.ended = true }, sooner: true},
		"has ended":                 {before: func(w *worker) { w.released = true }, sooner: true},
		"gone":                      {before: func(w *worker) { delete(w.m.workers, w.uid) }, sooner: true},
	} {
		w, _ := offline(shell("app", ""))
		if test.before != nil {
			test.before(w)
		}
		interrupts := w.interrupts
		_, ours, sooner := w.m.Evict(w.uid, evicted)
		require.Equal(t, test.sooner, sooner, name)
		require.Equal(t, test.ours, ours, name)
		if !test.sooner {
			require.Equal(t, interrupts, w.interrupts, "nothing is looked at for nothing: "+name)
		}
		// What the pod does of itself from now on comes too late.
		if stands := w.verdict != nil || w.ordered != nil; stands {
			if w.verdict == nil {
				require.False(t, w.decide(&podstatus.Verdict{Reason: "GPUFault"}), name)
			}
			require.Equal(t, test.reason, w.verdict.Reason, name)
		} else {
			require.Empty(t, test.reason, name)
		}
	}
}
