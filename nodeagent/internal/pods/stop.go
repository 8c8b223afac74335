package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
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
	if w.verdict != nil && w.verdict.Grace != nil {
		grace = min(grace, *w.verdict.Grace)
	}
	if t.deleting() || w.verdict != nil {
		// The whole pod ends: one clock for all its containers, stage by stage.
		if w.stopSince.IsZero() {
			w.stopSince = w.m.o.Clock.Now()
		}
		grace -= w.m.o.Clock.Since(w.stopSince)
	}
	return max(grace, graceLeast)
}

// kill ends the plan's containers, all at once, and returns when they have ended.
func (w *worker) kill(ctx context.Context, t *task) error {
	inner, done := w.interruptible(ctx, t.seen)
	defer done()
	grace := w.grace(t)
	errs := make([]error, len(t.plan.kill))
	var all sync.WaitGroup
	for i, k := range t.plan.kill {
		if !w.killed[k.id] {
			w.killed[k.id] = true
			message := k.message
			if message == "" {
				message = "Stopping container " + k.name
			}
			w.event(containerRef(t.pod, k.name), corev1.EventTypeNormal, eventKilling, message)
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

func (w *worker) killOne(ctx context.Context, t *task, k killing, grace time.Duration) error {
	if k.grace != nil && !t.deleting() {
		grace = time.Duration(*k.grace) * time.Second
	}
	if spec := findContainer(t.pod, k.name); spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil {
		grace = w.preStop(ctx, t.pod, spec, k.id, grace)
	}
	seconds := int64(max(grace, graceLeast).Round(time.Second) / time.Second)
	if err := w.m.o.Runtime.StopContainer(ctx, k.id, seconds); err != nil && !cri.IsNotFound(err) {
		return fmt.Errorf("stop container %q: %w", k.name, err)
	}
	return nil
}

// release frees what the pod held of the node: nothing of it lives.
func (w *worker) release() {
	w.m.gpus.release(w.uid)
	w.mu.Lock()
	w.released = true
	w.mu.Unlock()
	w.m.roomFreed()
}

// isOver tells those who wait for the pod's end.
func (w *worker) isOver() {
	select {
	case <-w.over:
	default:
		close(w.over)
	}
}

// settle frees what a pod holds that has ended and stays in the API. Its dead
// containers stay, so that their logs can be read.
func (w *worker) settle(ctx context.Context, t *task) error {
	if !w.settled {
		if err := w.dismantle(ctx, t); err != nil {
			return err
		}
		w.release() // not before: a start that was cut off may still have come about
		if actual, err := w.m.lister.Pod(ctx, w.uid); err == nil {
			t.actual = actual
		}
		if err := w.m.checkpoints.remove(w.uid); err != nil {
			return err
		}
		w.settled = true
	}
	if podstatus.Terminal(t.pod.Status.Phase) && w.verdict == nil && len(t.actual.Containers) == 0 {
		w.isOver()
		return nil // the API knows all that there is to know
	}
	w.publish(t, true)
	w.isOver()
	return nil
}

// dismantle stops the sandboxes and takes the volumes away.
func (w *worker) dismantle(ctx context.Context, t *task) error {
	if w.stopLooking != nil {
		w.stopLooking()
	}
	errs := make([]error, len(t.actual.Sandboxes)+1)
	var all sync.WaitGroup
	for i, s := range t.actual.Sandboxes {
		all.Go(func() {
			if err := w.m.o.Runtime.StopPodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
				errs[i] = fmt.Errorf("stop the pod's sandbox: %w", err)
			}
		})
	}
	all.Go(func() { errs[len(errs)-1] = w.m.o.Volumes.Teardown(ctx, w.uid) })
	all.Wait()
	if err := errs[len(errs)-1]; err != nil && ctx.Err() == nil {
		w.tell(podRef(t.pod), eventFailedUnmount, eventFailedUnmount, err.Error(), err.Error())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.m.removeCgroup(w.uid)
}

// removeCgroup takes away the cgroup around a pod's containers, which the runtime
// makes and leaves behind.
func (m *Manager) removeCgroup(uid types.UID) error {
	return cgroup.Remove(cgroup.Mount, crispec.PodCgroup(m.o.CgroupParent, uid))
}

// takeAway ends a deleted pod of which nothing runs: volumes and sandbox gone, last
// status, then the API object, then what is left on the machine.
func (w *worker) takeAway(ctx context.Context, t *task) (result, error) {
	if err := w.dismantle(ctx, t); err != nil {
		return result{}, err
	}
	w.release()
	// Only now: to the scheduler a terminal phase is room on the node, and the pod that
	// it sends at once must find the cards and ports free.
	if !t.absent && !neverRan(t) {
		w.publish(t, true)
	}
	if !t.absent {
		inner, done := w.interruptible(ctx, t.seen)
		err := w.writer.flush(inner)
		done()
		if err != nil {
			return result{more: true}, nil
		}
		// Not to be interrupted: deleting is what cuts the grace to nothing.
		if err := w.deleteObject(ctx, t.pod); err != nil {
			return result{}, err
		}
	}
	w.isOver()
	return result{gone: true}, w.clean(ctx, t)
}

// neverRan reports whether there is nothing to tell of the pod: no container of
// it was ever made.
func neverRan(t *task) bool {
	return len(t.actual.Containers) == 0 && len(t.pod.Status.ContainerStatuses) == 0
}

// deleteObject deletes the API object at once, if it is still this pod's.
func (w *worker) deleteObject(ctx context.Context, pod *corev1.Pod) error {
	w.mu.Lock()
	w.deleted = true
	w.mu.Unlock()
	err := w.m.o.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0),
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// clean removes the last traces of the pod from the machine.
func (w *worker) clean(ctx context.Context, t *task) error {
	for _, s := range t.actual.Sandboxes {
		if err := w.m.o.Runtime.RemovePodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
			return fmt.Errorf("remove the pod's sandbox: %w", err)
		}
	}
	for _, c := range t.actual.Containers {
		w.m.lister.Forget(c.Id)
	}
	return errors.Join(
		os.RemoveAll(w.m.logDirectory(t.pod)),
		os.RemoveAll(w.m.messages.folder(w.uid)),
		w.m.checkpoints.remove(w.uid),
	)
}
