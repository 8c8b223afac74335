package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/plan"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// wholePod is the key under which trouble of the pod as a whole is remembered.
const wholePod = ""

// prepared is what a container needs besides sandbox and volumes.
type prepared struct {
	imageRef string
	imageErr error
	env      []*runtimeapi.KeyValue
	envErr   error
	target   string // see crispec.ContainerOptions
}

// start makes the plan's containers. All that can be done at once is: sandbox,
// volumes, images and the objects behind environment variables; then containers
// are made in the order of the spec, as their hooks expect.
func (w *worker) start(ctx context.Context, t *task) result {
	due, again := w.due(t.plan.Start)
	if len(due) == 0 {
		return result{again: again}
	}
	inner, done := w.interruptible(ctx, t.seen)
	defer done()

	var sandboxID string
	sandbox, sandboxThere := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(sandboxThere)
		var err error
		sandboxID, err = w.ensureSandbox(ctx, t)
		sandbox <- err
	}()
	var mounted map[string]string
	volumes := make(chan error, 1)
	go func() {
		var err error
		mounted, err = w.m.o.Volumes.Setup(inner, t.pod)
		volumes <- err
	}()
	var sandboxErr, volumesErr error
	await := func() { sandboxErr, volumesErr = <-sandbox, <-volumes }
	// What the last try failed by is tried by itself: nothing else is asked of the
	// API and the runtime before it is there.
	held := w.retries[wholePod].failures > 0
	if held {
		await()
	}
	ready := make([]chan prepared, len(due))
	for i, s := range due {
		ready[i] = make(chan prepared, 1)
		if sandboxErr != nil || volumesErr != nil {
			ready[i] <- prepared{}
			continue
		}
		c := findContainer(t.pod, s.Name)
		known := w.pulled[c.Name].of(c)
		go func() { ready[i] <- w.prepare(inner, t.pod, c, known, sandboxThere) }()
	}
	if !held {
		await()
	}
	if volumesErr == nil {
		w.lookAfter(ctx, t)
	}
	started, touched := false, t.plan.Sandbox
	for i, s := range due {
		p := w.await(ctx, t, ready[i], started)
		c := findContainer(t.pod, s.Name)
		if p.imageRef != "" && p.imageErr == nil {
			w.pulled[s.Name] = pulled{image: c.Image, ref: p.imageRef}
		}
		if inner.Err() != nil || sandboxErr != nil || volumesErr != nil {
			continue // only wait for what is under way
		}
		if err := w.startContainer(inner, t, c, s, p, sandboxID, mounted); err != nil {
			again = earliest(again, w.startFailed(t, c, err))
			touched = touched || inRuntime(err)
			continue
		}
		started = true
		delete(w.waiting, s.Name)
		delete(w.retries, s.Name)
		if s.Crash != nil {
			w.crashes[s.Name] = *s.Crash
		}
	}
	switch {
	case inner.Err() != nil:
		return result{more: ctx.Err() == nil}
	case sandboxErr != nil:
		again = earliest(again, w.podFailed(t, due, eventFailedSandbox, "Failed to create pod sandbox: "+sandboxErr.Error()))
	case volumesErr != nil:
		again = earliest(again, w.podFailed(t, due, eventFailedMount, volumesErr.Error()))
	default:
		delete(w.retries, wholePod)
	}
	if !started {
		if touched {
			w.refresh(ctx, t)
		}
		w.publish(t, false)
	}
	return result{more: started, again: again}
}

// due are the containers that no earlier failure holds back, and when the next of
// the others may be tried.
func (w *worker) due(planned []plan.Starting) (due []plan.Starting, again time.Time) {
	now := w.m.o.Clock.Now()
	if at := w.retries[wholePod].at; now.Before(at) {
		return nil, at
	}
	for _, s := range planned {
		if at := w.retries[s.Name].at; now.Before(at) {
			again = earliest(again, at)
			continue
		}
		due = append(due, s)
	}
	return due, again
}

// failed counts a failure and returns when to try again: soon, but not before
// least, of which it is known that nothing can come before.
func (w *worker) failed(key string, least time.Time) time.Time {
	now := w.m.o.Clock.Now()
	r := w.retries[key]
	r.failures++
	r.at = now.Add(backoff.Retry(r.failures))
	if known := now.Add(relistEvery); least.After(known) {
		least = known // somebody may have mended it by hand
	}
	if least.After(r.at) {
		r.at = least
	}
	w.retries[key] = r
	return r.at
}

// podFailed notes why none of the containers can be started yet.
func (w *worker) podFailed(t *task, due []plan.Starting, reason, message string) time.Time {
	waiting := podstatus.ContainerCreating
	if len(t.pod.Spec.InitContainers) > 0 {
		waiting = podstatus.PodInitializing
	}
	for _, s := range due {
		w.wait(s.Name, podstatus.Waiting{Reason: waiting, Message: message})
	}
	w.tell(podRef(t.pod), reason, reason, message, message)
	return w.failed(wholePod, time.Time{})
}

// wait notes why a container does not run. A text that differs from the one before
// in the runtime's ids alone is no news.
func (w *worker) wait(name string, waiting podstatus.Waiting) {
	if before := w.waiting[name]; before.Reason == waiting.Reason && withoutIDs(before.Message) == withoutIDs(waiting.Message) {
		return
	}
	w.waiting[name] = waiting
}

// await waits for a container's preparation; if that takes long, what has been
// started is shown meanwhile.
func (w *worker) await(ctx context.Context, t *task, ready <-chan prepared, started bool) prepared {
	if started {
		select {
		case p := <-ready:
			return p
		default:
			w.refresh(ctx, t)
			w.publish(t, false)
		}
	}
	return <-ready
}

// refresh reads the actual state again.
func (w *worker) refresh(ctx context.Context, t *task) {
	actual, err := w.m.lister.Pod(ctx, w.uid)
	if err != nil {
		return
	}
	t.actual = actual
	w.probe(ctx, t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.actual = actual
}

// ensureSandbox returns the pod's sandbox, made if the plan asks for it.
func (w *worker) ensureSandbox(ctx context.Context, t *task) (id string, err error) {
	if err := os.MkdirAll(w.m.logDirectory(t.pod), 0o755); err != nil { // log readers of the machine
		return "", fmt.Errorf("make the pod's log folder: %w", err)
	}
	if !t.plan.Sandbox {
		return t.actual.Sandboxes[0].Id, w.limit(t.pod, crispec.LimitsOf(t.pod))
	}
	config, err := w.sandboxConfig(t.pod, t.plan.Attempt)
	if err != nil {
		return "", err
	}
	if t.plan.Attempt > 0 && w.retries[wholePod].failures == 0 {
		w.event(podRef(t.pod), corev1.EventTypeNormal, eventSandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	if id, err = w.makeSandbox(context.WithoutCancel(ctx), t, config); err != nil {
		return "", err
	}
	w.limits = nil // the runtime has made the cgroup anew
	return id, w.limit(t.pod, crispec.LimitsOf(t.pod))
}

// pulled is the image that a start has brought which failed later: the next try is
// the same start, and does not pull again.
type pulled struct{ image, ref string }

// of is the reference of the image, if it is the one that c asks for.
func (p pulled) of(c *corev1.Container) string {
	if p.image != c.Image {
		return ""
	}
	return p.ref
}

// prepare brings the image, unless it is known, and makes the environment, which
// may need objects of the API, at the same time.
func (w *worker) prepare(ctx context.Context, pod *corev1.Pod, c *corev1.Container, known string, sandbox <-chan struct{}) prepared {
	p := prepared{imageRef: known}
	fetched := make(chan struct{})
	go func() {
		defer close(fetched)
		p.env, p.envErr = w.env(ctx, pod, c, sandbox)
	}()
	if known == "" {
		p.imageRef, p.imageErr = w.m.o.Images.Ensure(ctx, pod, c)
	}
	<-fetched
	return p
}

// startError says in which step a container could not be started.
type startError struct {
	waiting podstatus.Waiting
	// silent: an event has been published already.
	silent bool
	// until is when another try may succeed at the soonest; zero: at any time.
	until time.Time
	err   error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

func stepFailed(reason string, err error) *startError {
	return &startError{waiting: podstatus.Waiting{Reason: reason, Message: err.Error()}, err: err}
}

// inRuntime reports whether the step was one that may have left something in the
// runtime.
func inRuntime(err error) bool {
	var step *startError
	return errors.As(err, &step) && (step.waiting.Reason == podstatus.CreateContainerError || step.waiting.Reason == podstatus.RunContainerError)
}

// startContainer makes and starts one container.
func (w *worker) startContainer(ctx context.Context, t *task, c *corev1.Container, s plan.Starting, p prepared, sandbox string, mounted map[string]string) error {
	if p.imageErr != nil {
		return imageFailed(p.imageErr)
	}
	if p.envErr != nil {
		return stepFailed(podstatus.CreateContainerConfigError, p.envErr)
	}
	c = w.debugging(t, c)
	id := s.Resume
	if id == "" {
		if s.Attempt == 0 {
			s.Attempt = attemptAfter(filepath.Join(w.m.logDirectory(t.pod), c.Name))
		}
		var err error
		if id, err = w.createContainer(ctx, t, c, s, p, sandbox, mounted); err != nil {
			return err
		}
		w.event(containerRef(t.pod, c.Name), corev1.EventTypeNormal, eventCreated, "Container created")
	}
	// Not to be cut off half-way, by a deletion or by the agent's end: a call that is
	// cancelled may come about all the same, or leave a container that never ran.
	if err := w.m.o.Runtime.StartContainer(context.WithoutCancel(ctx), id); err != nil {
		return stepFailed(podstatus.RunContainerError, err)
	}
	w.event(containerRef(t.pod, c.Name), corev1.EventTypeNormal, eventStarted, "Container started")
	if err := w.postStart(ctx, c, id); err != nil && ctx.Err() == nil {
		w.event(containerRef(t.pod, c.Name), corev1.EventTypeWarning, eventFailedPostStart, "PostStartHook failed")
		w.event(containerRef(t.pod, c.Name), corev1.EventTypeNormal, eventKilling, "FailedPostStartHook")
		w.killed[id] = true
		if err := w.m.o.Runtime.StopContainer(ctx, id, int64(w.grace(t)/time.Second)); err != nil {
			return stepFailed("PostStartHookError", err)
		}
	}
	return nil
}

// postStart runs the container's hook and returns its failure.
func (w *worker) postStart(ctx context.Context, c *corev1.Container, id string) error {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	return w.hooks().Run(ctx, c, c.Lifecycle.PostStart, id, 0)
}

func (w *worker) createContainer(ctx context.Context, t *task, c *corev1.Container, s plan.Starting, p prepared, sandbox string, mounted map[string]string) (string, error) {
	expanded, err := crispec.ExpandSubPaths(c, p.env)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	mounts, err := w.m.o.Volumes.Mounts(t.pod, expanded, mounted)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	message, err := w.m.files.MountMessage(t.pod.UID, c, s.Attempt)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	if mounts, err = w.m.files.MountHosts(t.pod, append(mounts, message), crispec.HostsOptions{
		Network: w.m.o.Network, IPs: w.addresses(), ClusterDomain: w.m.o.ClusterDomain,
	}); err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	w.tellNames(t.pod)
	attempt := t.plan.Attempt
	if !t.plan.Sandbox {
		attempt = t.actual.Sandboxes[0].GetMetadata().GetAttempt()
	}
	sandboxConfig, err := w.sandboxConfig(t.pod, attempt)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	if p.target, err = target(t, c.Name); err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	config, err := w.containerConfig(ctx, t.pod, c, s.Attempt, p, mounts)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerConfigError, err)
	}
	logs := filepath.Dir(filepath.Join(w.m.logDirectory(t.pod), config.LogPath))
	if err := os.MkdirAll(logs, 0o755); err != nil { // log readers of the machine
		return "", stepFailed(podstatus.CreateContainerError, err)
	}
	delete(w.pulled, c.Name) // if it fails, the image may have been removed since
	id, err := w.m.o.Runtime.CreateContainer(context.WithoutCancel(ctx), sandbox, config, sandboxConfig)
	if err != nil {
		return "", stepFailed(podstatus.CreateContainerError, err)
	}
	return id, nil
}

// attemptAfter is the attempt after the last that left a log: the runtime may have
// lost its containers, as by a reboot. 0 if none did.
func attemptAfter(folder string) uint32 {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0
	}
	next := uint32(0)
	for _, entry := range entries {
		number, _, _ := strings.Cut(entry.Name(), ".log")
		if n, err := strconv.ParseUint(number, 10, 31); err == nil {
			next = max(next, uint32(n)+1)
		}
	}
	return next
}

// startFailed notes why a container does not run and returns when to try again.
func (w *worker) startFailed(t *task, c *corev1.Container, err error) time.Time {
	var step *startError
	if !errors.As(err, &step) {
		step = stepFailed(podstatus.RunContainerError, err)
	}
	w.wait(c.Name, step.waiting)
	if !step.silent {
		w.tell(containerRef(t.pod, c.Name), eventFailed+c.Name, eventFailed, step.waiting.Message, "Error: "+step.waiting.Message)
	}
	return w.failed(c.Name, step.until)
}
