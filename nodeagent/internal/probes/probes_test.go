package probes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// patient is a container that answers its exec probes as it is told to, by the
// command's first word, and counts them. Its tests run in bubbles of time
// (testing/synctest), so that delays are exact and take no time.
type patient struct {
	*Set
	begin  time.Time
	mu     sync.Mutex
	fails  map[string]error
	asked  map[string][]time.Duration // since begin
	warned []string
	news   int
}

func newPatient() *patient {
	p := &patient{begin: time.Now(), fails: map[string]error{}, asked: map[string][]time.Duration{}}
	p.Set = New(Options{
		Runtime: p, Clock: clock.RealClock{},
		Changed: func() { p.mu.Lock(); p.news++; p.mu.Unlock() },
		Warn: func(container, reason, message string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.warned = append(p.warned, fmt.Sprintf("%s %s %s", container, reason, message))
		},
	})
	return p
}

func (p *patient) ExecSync(_ context.Context, _ string, command []string, _ time.Duration) (stdout, stderr []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[command[0]] = append(p.asked[command[0]], time.Since(p.begin))
	return []byte("said "), []byte("so\n"), p.fails[command[0]]
}

// turn changes what the probe of that name comes to.
func (p *patient) turn(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails[name] = err
}

var failed = utilexec.CodeExitError{Err: errors.New("no"), Code: 1}

// every is a probe of period and thresholds 1 s, 1 and 3.
func every(name string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}},
		PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
	}
}

func (p *patient) follow(t *testing.T, spec *corev1.Container, change func(*Container)) {
	t.Helper()
	spec.Name = "main"
	c := Container{ID: "c", Spec: spec, Running: true, StartedAt: p.begin, Address: "127.0.0.1"}
	if change != nil {
		change(&c)
	}
	p.Follow(t.Context(), &corev1.Pod{}, []Container{c}, false)
}

// after is the state at a time since begin.
func (p *patient) after(since time.Duration) podstatus.Probed {
	time.Sleep(since - time.Since(p.begin))
	synctest.Wait()
	return p.Results()["c"]
}

const second = time.Second

func TestReadiness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("ready", failed)
		probe := every("ready")
		probe.InitialDelaySeconds, probe.SuccessThreshold = 5, 2
		p.follow(t, &corev1.Container{ReadinessProbe: probe}, nil)
		require.Equal(t, podstatus.Probed{Started: true}, p.after(0))
		require.Equal(t, podstatus.Probed{Started: true}, p.after(6*second))
		require.Equal(t, []time.Duration{5 * second, 6 * second}, p.asked["ready"])
		p.turn("ready", nil)
		require.False(t, p.after(7*second).Ready, "one success of two")
		require.True(t, p.after(8*second).Ready)
		require.Equal(t, 1, p.news, "told when something has changed")
		p.turn("ready", failed)
		require.True(t, p.after(10*second).Ready, "two failures of three")
		require.False(t, p.after(11*second).Ready)
		require.Empty(t, p.Failures(), "an unready container is not restarted")
		require.Equal(t, []string{"main Unhealthy Readiness probe failed: said so", "main Unhealthy Readiness probe failed: said so"}, p.warned,
			"said once in a row of failures")
	})
}

func TestLiveness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		probe := every("live")
		probe.TerminationGracePeriodSeconds = ptr.To[int64](7)
		p.follow(t, &corev1.Container{LivenessProbe: probe}, nil)
		require.Equal(t, podstatus.Probed{Started: true, Ready: true}, p.after(0))
		p.after(10 * second)
		p.turn("live", failed)
		p.after(12 * second)
		p.turn("live", nil)
		p.after(13 * second)
		p.turn("live", failed)
		p.after(15 * second)
		require.Empty(t, p.Failures(), "never three in a row")
		p.after(16 * second)
		require.Equal(t, map[string]Failure{"c": {Kind: Liveness, Grace: ptr.To[int64](7)}}, p.Failures())
		require.Equal(t, 1, p.news)
		asked := len(p.asked["live"])
		p.after(time.Minute)
		require.Len(t, p.asked["live"], asked, "it is to be killed")

		p.follow(t, &corev1.Container{LivenessProbe: probe}, func(c *Container) { c.Running = false })
		require.Len(t, p.Failures(), 1, "why it was ended is known while it is there")
		p.Follow(t.Context(), &corev1.Pod{}, nil, false)
		require.Empty(t, p.Failures())
	})
}

func TestNothingButStartupIsAskedBeforeTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("up", failed)
		startup := every("up")
		startup.FailureThreshold = 10
		p.follow(t, &corev1.Container{StartupProbe: startup, ReadinessProbe: every("ready"), LivenessProbe: every("live")}, nil)
		require.Equal(t, podstatus.Probed{}, p.after(4500*time.Millisecond))
		require.Empty(t, p.asked["ready"])
		require.Empty(t, p.asked["live"])
		p.turn("up", nil)
		require.Equal(t, podstatus.Probed{Started: true, Ready: true}, p.after(5*second), "asked for readiness at once")
		p.after(10 * second)
		require.Len(t, p.asked["up"], 6, "not asked again")
		require.Len(t, p.asked["live"], 6)
	})
}

func TestStartupFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("up", failed)
		p.follow(t, &corev1.Container{StartupProbe: every("up")}, nil)
		p.after(2 * second)
		require.Equal(t, map[string]Failure{"c": {Kind: Startup}}, p.Failures())
		require.False(t, p.Results()["c"].Started)
	})
}

// What cannot be asked says nothing of the container.
func TestErrorsCountForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("live", errors.New("the runtime is away"))
		p.follow(t, &corev1.Container{LivenessProbe: every("live")}, nil)
		p.after(30 * second)
		require.Empty(t, p.Failures())
		require.Len(t, p.asked["live"], 31*attempts)
		require.Equal(t, []string{"main Unhealthy Liveness probe errored and resulted in unknown state: the runtime is away"}, p.warned)
	})
}

func TestAnEndingPodIsNotRestarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		spec := &corev1.Container{Name: "main", LivenessProbe: every("live"), ReadinessProbe: every("ready")}
		p.follow(t, spec, nil)
		require.True(t, p.after(second).Ready)
		p.turn("live", failed)
		p.turn("ready", failed)
		p.Follow(t.Context(), &corev1.Pod{}, []Container{{ID: "c", Spec: spec, Running: true}}, true)
		require.False(t, p.after(10*second).Ready, "yet it is taken out of its Services")
		require.Empty(t, p.Failures())
	})
}

// A restart of the agent makes no container unready and asks not all at once.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("up", failed)
		p.turn("ready", failed)
		ready := every("ready")
		ready.PeriodSeconds, ready.FailureThreshold = 10, 2
		p.follow(t, &corev1.Container{StartupProbe: every("up"), ReadinessProbe: ready}, func(c *Container) {
			c.StartedAt, c.Before = p.begin.Add(-time.Hour), &podstatus.Probed{Started: true, Ready: true}
		})
		require.Equal(t, podstatus.Probed{Started: true, Ready: true}, p.after(0))
		p.after(10 * second)
		require.Len(t, p.asked["ready"], 1)
		require.Less(t, p.asked["ready"][0], 10*second)
		require.True(t, p.Results()["c"].Ready)
		require.False(t, p.after(20*second).Ready)
		require.Empty(t, p.asked["up"])
	})
}

// What was told before is known only when the API has answered.
func TestTakenOverLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		defer p.Close()
		p.turn("up", failed)
		slow := every("ready")
		slow.InitialDelaySeconds = 10
		spec := &corev1.Container{StartupProbe: every("up"), ReadinessProbe: slow}
		told := func(ready bool) func(*Container) {
			return func(c *Container) { c.Before = &podstatus.Probed{Started: true, Ready: ready} }
		}
		p.follow(t, spec, nil)
		require.Equal(t, podstatus.Probed{}, p.after(second))
		asked := len(p.asked["up"])
		p.follow(t, spec, told(true))
		require.Equal(t, podstatus.Probed{Started: true, Ready: true}, p.Results()["c"])
		require.True(t, p.after(9*second).Ready)
		require.Len(t, p.asked["up"], asked, "it is not asked whether it has started")
		require.Empty(t, p.Failures())

		p.turn("ready", failed)
		require.False(t, p.after(20*second).Ready)
		p.follow(t, spec, told(true))
		require.False(t, p.Results()["c"].Ready, "this run knows better")
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = "default", "counted", "uid-counted"
	lines := func() int {
		families, err := Metrics().Gather()
		require.NoError(t, err)
		n := 0
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					if label.GetValue() == "counted" {
						n++
					}
				}
			}
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPatient()
		p.Follow(t.Context(), pod, []Container{{ID: "c", Spec: &corev1.Container{Name: "main", LivenessProbe: every("live")}, Running: true}}, false)
		p.after(second)
		require.Equal(t, 2, lines())
		p.Close()
		require.Zero(t, lines(), "a pod that is gone is dropped")
	})
}
