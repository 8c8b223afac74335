package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/checkpoint"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/logrotation"
	"github.com/ainode/ainode/nodeagent/internal/plan"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// task is one sync's subject: what the worker saw at its beginning.
type task struct {
	pod    *corev1.Pod
	absent bool
	actual *cri.Pod
	// seen is the count of interrupts when pod was read.
	seen int
	plan plan.Step
}

// deleting reports whether the pod is to be taken away.
func (t *task) deleting() bool { return t.absent || t.pod.DeletionTimestamp != nil }

// beginAgain is after how long it is asked again whether a pod may begin.
const beginAgain = 2 * time.Second

// mayBegin reports whether the pod may have a new sandbox. One that is only remembered is
// looked after while its sandbox stands, and gets no new one before the API has shown it:
// while the machine was off its binding may have been ended by force and its pod be
// another's. Nor does a kubelet begin anything before it has heard the API. One that has
// not run here may be another machine's, which has the name by now.
func (w *worker) mayBegin(t *task) bool {
	shown := t.pod.ResourceVersion != ""
	return shown && (len(t.actual.Sandboxes) > 0 || w.m.o.Serves())
}

// sync compares what is wanted with what is there and takes the next step.
func (w *worker) sync(ctx context.Context) (result, error) {
	t := &task{}
	w.mu.Lock()
	t.pod, t.absent, t.seen = w.pod, w.absent, w.interrupts
	if w.verdict == nil && !w.dead && (t.pod == nil || !podstatus.Terminal(t.pod.Status.Phase)) {
		w.verdict = w.ordered
	}
	w.mu.Unlock()

	actual := &cri.Pod{UID: w.uid}
	if !w.fresh {
		var err error
		if actual, err = w.m.lister.Pod(ctx, w.uid); err != nil {
			return result{}, err
		}
	}
	w.fresh = false
	t.actual = actual
	w.sawSandbox(actual.SandboxStatus)
	w.mu.Lock()
	w.actual = actual
	w.mu.Unlock()

	if t.pod == nil {
		if !t.absent {
			return result{}, nil // found in the runtime; the API has not answered yet
		}
		t.pod = stub(actual)
	}
	if w.daemonSet && !t.deleting() {
		w.leavePending(t)
		return result{}, nil
	}
	if t.pod.Generation != w.generation {
		clear(w.retries) // what is wanted has changed: it may be what was wrong
		w.generation = t.pod.Generation
	}
	deadline := w.checkDeadline(t.pod)
	stop := w.dead || t.deleting() || w.verdict != nil || podstatus.Terminal(t.pod.Status.Phase)
	if !stop {
		w.grant(t)
		w.resize(ctx, t)
	}
	if t.deleting() && w.stopSince.IsZero() {
		w.stopSince = w.m.o.Clock.Now()
	}
	w.remember(ctx, t)
	w.probe(ctx, t)
	t.plan = plan.Next(plan.View{
		Pod: t.pod, OwnAddress: !w.m.shared(), Refused: w.refuseDebug(t), Actual: actual, Crashes: w.crashes, Now: w.m.o.Clock.Now(),
		Probes: w.probes.Results(), Failed: w.probes.Failures(), Resized: w.resized, Stop: stop,
	})
	if verdict := w.fallen(t); verdict != nil {
		w.decide(verdict)
		return result{more: true}, nil
	}
	w.noteWaiting(t)
	if !w.hasEnded(t) {
		return result{more: true}, nil
	}

	switch {
	case len(t.plan.Kill) > 0:
		if !t.deleting() {
			w.publish(t, false)
		}
		return result{more: true}, w.kill(ctx, t)
	case t.plan.Ended && t.deleting():
		return w.takeAway(ctx, t)
	case t.plan.Ended:
		return w.settle(ctx, t)
	}
	w.publish(t, false)
	w.prune(ctx, t)
	if len(t.actual.Containers) > 0 { // else start does, when it has made the volumes
		w.lookAfter(ctx, t)
	}
	if t.plan.Sandbox && !w.mayBegin(t) {
		return result{again: earliest(deadline, w.m.o.Clock.Now().Add(beginAgain))}, nil
	}
	if len(t.plan.Start) > 0 {
		r := w.start(ctx, t)
		r.again = earliest(r.again, earliest(t.plan.Again, deadline))
		return r, nil
	}
	return result{again: earliest(t.plan.Again, deadline)}, nil
}

// stub stands for a pod of which only the runtime knows.
func stub(actual *cri.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: actual.UID, Namespace: actual.Namespace, Name: actual.Name}}
}

// checkDeadline ends the pod when its activeDeadlineSeconds are over, and
// otherwise returns when that will be.
func (w *worker) checkDeadline(pod *corev1.Pod) time.Time {
	began := pod.Status.StartTime
	w.mu.Lock()
	if began == nil && w.status != nil {
		began = w.status.StartTime // not written yet
	}
	w.mu.Unlock()
	if pod.Spec.ActiveDeadlineSeconds == nil || began == nil || w.verdict != nil || w.dead {
		return time.Time{}
	}
	at := began.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second)
	if w.m.o.Clock.Now().Before(at) {
		return at
	}
	if podstatus.Terminal(pod.Status.Phase) {
		return time.Time{}
	}
	const message = "Pod was active on the node longer than the specified deadline"
	if w.decide(&podstatus.Verdict{Reason: "DeadlineExceeded", Message: message}) {
		w.event(podRef(pod), corev1.EventTypeNormal, eventDeadlineExceeded, message)
	}
	return time.Time{}
}

// remember writes the checkpoint of a pod that may run, when something in it changed.
func (w *worker) remember(ctx context.Context, t *task) {
	if w.dead || t.absent || w.verdict != nil || podstatus.Terminal(t.pod.Status.Phase) {
		return
	}
	now := saved{generation: t.pod.Generation, deleting: t.pod.DeletionTimestamp != nil, started: true, waits: w.resizing.Pending != nil, services: w.m.servicesRead()}
	if w.saved == now {
		return
	}
	point := checkpoint.Checkpoint{Pod: t.pod.DeepCopy(), Cards: w.cards, Services: w.servicesToRemember(t.pod), StopSince: w.stopSince, Epoch: w.m.o.Epoch}
	point.Pod.ManagedFields = nil
	if point.Pod.Status.StartTime == nil {
		started := metav1.NewTime(w.m.o.Clock.Now())
		point.Pod.Status.StartTime = &started
	}
	if err := w.m.checkpoints.Save(w.uid, point); err != nil {
		klog.FromContext(ctx).Error(err, "a restart of the agent would judge the pod anew")
		return
	}
	w.saved = now
}

// noteWaiting merges the plan's reasons into the remembered ones and tells a new
// back-off once.
func (w *worker) noteWaiting(t *task) {
	for name, waiting := range t.plan.Waiting {
		w.waiting[name] = waiting
		attempt := uint32(0)
		for _, c := range t.actual.Containers {
			if c.GetMetadata().GetName() == name {
				attempt = c.GetMetadata().GetAttempt()
				break
			}
		}
		w.tell(containerRef(t.pod, name), eventBackOff+name, eventBackOff, fmt.Sprintf("%d", attempt),
			fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", name, t.pod.Name, t.pod.Namespace, t.pod.UID))
	}
}

// prune removes what is dead and no longer needed; what fails is tried next time.
func (w *worker) prune(ctx context.Context, t *task) {
	for _, id := range t.plan.PruneContainers {
		if err := w.m.o.Runtime.RemoveContainer(ctx, id); err == nil || cri.IsNotFound(err) {
			w.m.lister.Forget(id)
			w.removeFiles(t, id)
		}
	}
	for _, id := range t.plan.PruneSandboxes {
		if err := w.m.o.Runtime.StopPodSandbox(ctx, id); err == nil || cri.IsNotFound(err) {
			_ = w.m.o.Runtime.RemovePodSandbox(ctx, id)
		}
	}
}

// removeFiles removes the logs and the termination message of a container that has
// been removed; nothing else would before the pod goes.
func (w *worker) removeFiles(t *task, id string) {
	for _, c := range t.actual.Containers {
		if c.Id == id {
			name, attempt := c.GetMetadata().GetName(), c.GetMetadata().GetAttempt()
			_ = logrotation.Remove(filepath.Join(w.m.logDirectory(t.pod), crispec.LogPath(name, attempt)))
			_ = os.Remove(w.m.files.MessagePath(w.uid, name, attempt))
		}
	}
}

// leavePending is all that happens to a DaemonSet's pod: it says why it does not run.
func (w *worker) leavePending(t *task) {
	for i := range t.pod.Spec.Containers {
		w.waiting[t.pod.Spec.Containers[i].Name] = podstatus.Waiting{Reason: eventDaemonSetNotRun, Message: messageDaemonSetNotRun}
	}
	for i := range t.pod.Status.ContainerStatuses {
		if waiting := t.pod.Status.ContainerStatuses[i].State.Waiting; waiting != nil && waiting.Reason == eventDaemonSetNotRun {
			w.told[eventDaemonSetNotRun] = told{message: eventDaemonSetNotRun, at: w.m.o.Clock.Now()}
		}
	}
	if _, said := w.told[eventDaemonSetNotRun]; !said {
		w.tell(podRef(t.pod), eventDaemonSetNotRun, eventDaemonSetNotRun, eventDaemonSetNotRun, messageDaemonSetNotRun)
	}
	w.publish(t, false)
}
