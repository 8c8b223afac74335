// Package probes asks containers how they are: startup, readiness and liveness
// probes by exec, HTTP, TCP and gRPC, with the kubelet's thresholds, delays and
// words (pkg/kubelet/prober). It decides nothing: what a result leads to is up to
// the pod's worker.
package probes

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// Kind is what a probe is for, as events name it.
type Kind string

// The kinds of probes.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Container is a container of a pod, and where it is asked.
type Container struct {
	ID   string
	Spec *corev1.Container
	// Running is false for one that has ended; what was found out of it is kept.
	Running   bool
	StartedAt time.Time
	// Address is the pod's.
	Address string
	// Before is what was told of this very container by an earlier run of the agent;
	// nil while nothing is known of that. It may come later than the container.
	Before *podstatus.Probed
}

// Failure is why a container is to be restarted.
type Failure struct {
	Kind Kind
	// Grace is the probe's own terminationGracePeriodSeconds, nil for the pod's.
	Grace *int64
}

// Options of a Set; all are required.
type Options struct {
	Runtime Execer
	Clock   clock.WithTicker
	// Changed is called when a result has changed. It must not block.
	Changed func()
	// Warn publishes a warning about a container.
	Warn func(container, reason, message string)
}

// Set holds the probes of one pod.
type Set struct {
	o    Options
	live sync.WaitGroup

	mu    sync.Mutex
	pod   *corev1.Pod
	known map[string]*subject
}

// subject is a container with probes.
type subject struct {
	// stop ends all probes, stopKillers those that get the container killed.
	stop, stopKillers context.CancelFunc
	// started is closed when the startup probe has succeeded; stopStartup ends it.
	started     chan struct{}
	stopStartup context.CancelFunc
	// heard: Before is known, or the readiness probe has said something since.
	heard   bool
	state   podstatus.Probed
	failure *Failure
}

// New makes a Set without containers.
func New(o Options) *Set { return &Set{o: o, known: map[string]*subject{}} }

// Follow probes those of the pod's containers that run and have probes, until ctx is
// done, and forgets those that are not among them. While the pod is ending, nothing
// is found out any more that would get a container restarted.
func (s *Set) Follow(ctx context.Context, pod *corev1.Pod, containers []Container, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pod = pod
	there := map[string]bool{}
	for _, c := range containers {
		there[c.ID] = true
		known := s.known[c.ID]
		if known != nil {
			known.hear(c.Before)
		}
		switch {
		case known == nil && c.Running && probed(c.Spec):
			s.known[c.ID] = s.begin(ctx, c, ending)
		case known != nil && !c.Running:
			known.stop()
		case known != nil && ending:
			known.stopKillers()
		}
	}
	maps.DeleteFunc(s.known, func(id string, known *subject) bool {
		if !there[id] {
			known.stop()
		}
		return !there[id]
	})
}

// Close ends all probes and returns when they have ended. Follow must not be called
// after it.
func (s *Set) Close() {
	s.mu.Lock()
	pod := s.pod
	for _, known := range s.known {
		known.stop()
	}
	s.mu.Unlock()
	s.live.Wait()
	if pod != nil {
		counts.forget(pod)
	}
}

// Results are what the probes say, by container id. A container without an entry
// has no probes.
func (s *Set) Results() map[string]podstatus.Probed {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make(map[string]podstatus.Probed, len(s.known))
	for id, known := range s.known {
		results[id] = known.state
	}
	return results
}

// Failures are the containers that have failed their startup or liveness probe, by
// container id, also after they have ended.
func (s *Set) Failures() map[string]Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	failures := map[string]Failure{}
	for id, known := range s.known {
		if known.failure != nil {
			failures[id] = *known.failure
		}
	}
	return failures
}

func probed(c *corev1.Container) bool {
	return c.StartupProbe != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil
}

// begin starts the probes of one container. Callers hold mu.
func (s *Set) begin(ctx context.Context, c Container, ending bool) *subject {
	known := &subject{started: make(chan struct{}), state: podstatus.Probed{
		Started: c.Spec.StartupProbe == nil, Ready: c.Spec.ReadinessProbe == nil,
	}}
	all, stop := context.WithCancel(ctx)
	killers, stopKillers := context.WithCancel(all)
	startup, stopStartup := context.WithCancel(killers)
	known.stop, known.stopKillers, known.stopStartup = stop, stopKillers, stopStartup
	if ending {
		stopKillers()
	}
	if known.state.Started {
		close(known.started)
	}
	known.hear(c.Before)
	if !known.state.Started {
		s.run(startup, known, c, Startup, c.Spec.StartupProbe)
	}
	s.run(all, known, c, Readiness, c.Spec.ReadinessProbe)
	s.run(killers, known, c, Liveness, c.Spec.LivenessProbe)
	return known
}

// hear takes note of what an earlier run of the agent has told: its restart makes no
// container unready (and none that has started is asked again whether it has). Where
// this run knows better, it is not listened to. Callers hold the set's mu.
func (k *subject) hear(before *podstatus.Probed) {
	if before == nil || k.heard {
		return
	}
	k.heard = true
	k.state.Ready = k.state.Ready || before.Ready
	if before.Started && !k.state.Started {
		k.state.Started = true
		k.stopStartup()
		close(k.started)
	}
}

func (s *Set) run(ctx context.Context, known *subject, c Container, kind Kind, spec *corev1.Probe) {
	if spec == nil {
		return
	}
	p := &probe{set: s, subject: known, container: c, kind: kind, spec: spec, pod: s.pod}
	s.live.Go(func() { p.run(ctx) })
}

// set notes a kind's result and tells when it is another.
func (s *Set) set(known *subject, kind Kind, spec *corev1.Probe, ok bool) {
	s.mu.Lock()
	before, failed := known.state, known.failure != nil
	switch {
	case kind == Readiness:
		known.state.Ready, known.heard = ok, true
	case kind == Startup && known.state.Started: // as was told meanwhile
	case !ok:
		known.failure = &Failure{Kind: kind, Grace: spec.TerminationGracePeriodSeconds}
	case kind == Startup:
		known.state.Started = true
		close(known.started)
	}
	changed := known.state != before || (known.failure != nil) != failed
	s.mu.Unlock()
	if changed {
		s.o.Changed()
	}
}
