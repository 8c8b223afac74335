package pods

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/hooks"
	"github.com/ainode/ainode/nodeagent/internal/plan"
)

// graceDefault is the API's default for terminationGracePeriodSeconds; graceLeast
// is what even a forced deletion leaves, as on a kubelet.
const (
	graceDefault = 30 * time.Second
	graceLeast   = time.Second
)

// grace is how long the pod's containers have to end from now on.
func (w *worker) grace(t *task) time.Duration {
	grace := graceDefault
	if t.pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*t.pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	if t.pod.DeletionTimestamp != nil && t.pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*t.pod.DeletionGracePeriodSeconds) * time.Second
	}
	w.mu.Lock()
	if t.deleting() || w.verdict != nil {
		// The whole pod ends: one clock for all its containers, stage by stage.
		if w.stopSince.IsZero() {
			w.stopSince = w.m.o.Clock.Now()
		}
		w.ownEnd = w.stopSince.Add(grace)
		grace = w.ownEnd.Sub(w.m.o.Clock.Now())
	}
	endBy := w.endBy
	w.mu.Unlock()
	if !endBy.IsZero() {
		grace = min(grace, endBy.Sub(w.m.o.Clock.Now()))
	}
	return max(grace, graceLeast)
}

// kill ends the plan's containers, all at once, and returns when they have ended.
func (w *worker) kill(ctx context.Context, t *task) error {
	inner, done := w.interruptible(ctx, t.seen)
	defer done()
	grace := w.grace(t)
	errs := make([]error, len(t.plan.Kill))
	var all sync.WaitGroup
	for i, k := range t.plan.Kill {
		if !w.killed[k.ID] {
			w.killed[k.ID] = true
			message := k.Message
			if message == "" {
				message = "Stopping container " + k.Name
			}
			w.event(containerRef(t.pod, k.Name), corev1.EventTypeNormal, eventKilling, message)
		}
		all.Go(func() { errs[i] = w.killOne(inner, t, k, grace) })
	}
	all.Wait()
	if inner.Err() != nil && ctx.Err() == nil {
		return nil // the grace was cut: look again and be quicker
	}
	err := errors.Join(errs...)
	if err != nil {
		w.tell(podRef(t.pod), eventFailedKill, eventFailedKill, err.Error(), "error killing pod: "+err.Error())
	}
	return err
}

func (w *worker) killOne(ctx context.Context, t *task, k plan.Killing, grace time.Duration) error {
	if k.Grace != nil && !t.deleting() {
		grace = time.Duration(*k.Grace) * time.Second
	}
	if spec := findContainer(t.pod, k.Name); spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil {
		grace = w.preStop(ctx, t.pod, spec, k.ID, grace)
	}
	seconds := int64(max(grace, graceLeast).Round(time.Second) / time.Second)
	if err := w.m.o.Runtime.StopContainer(ctx, k.ID, seconds); err != nil && !cri.IsNotFound(err) {
		return fmt.Errorf("stop container %q: %w", k.Name, err)
	}
	return nil
}

// preStop runs the container's hook, for at most grace, and returns what is left
// of grace. A hook that fails does not keep the container.
func (w *worker) preStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, grace time.Duration) time.Duration {
	begin := w.m.o.Clock.Now()
	if err := w.hooks().Run(ctx, c, c.Lifecycle.PreStop, id, grace); err != nil {
		w.event(containerRef(pod, c.Name), corev1.EventTypeWarning, eventFailedPreStop, "PreStopHook failed")
	}
	return grace - w.m.o.Clock.Since(begin)
}

// hooks runs those of the pod's containers.
func (w *worker) hooks() hooks.Runner {
	return hooks.Runner{
		Runtime: w.m.o.Runtime, Clock: w.m.o.Clock, Address: w.address,
		FellBack: func(message string) {
			w.event(podRef(w.object()), corev1.EventTypeWarning, eventHTTPFallback, message)
		},
	}
}
