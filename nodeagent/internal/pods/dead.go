package pods

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/checkpoint"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// bury frees what the pod held of the node, once it is proven that nothing of it lives,
// and has its last status written. It waits for no volume: cards are free when
// processes have ended (pkg/kubelet/kubelet.go, SyncTerminatingPod).
func (w *worker) bury(ctx context.Context, t *task) error {
	if !w.dead {
		if err := w.proveDead(ctx, t); err != nil {
			return err
		}
		// Before others can have its cards: an agent that is started now must not take
		// them for this pod's, nor start it again.
		if err := w.recordDeath(ctx, t); err != nil {
			return err
		}
		w.dead = true
		w.release()
	}
	// Only now: to the scheduler a terminal phase is room on the node, and the pod that
	// it sends at once must find the cards and ports free.
	if !nothingToTell(t, w.verdict) {
		w.publish(t, true)
	}
	return nil
}

// proveDead stops the pod's sandboxes, which gives its address back, and has the runtime
// and the kernel say that no process is left.
func (w *worker) proveDead(ctx context.Context, t *task) error {
	if w.stopLooking != nil {
		w.stopLooking()
	}
	errs := make([]error, len(t.actual.Sandboxes))
	var all sync.WaitGroup
	for i, s := range t.actual.Sandboxes {
		all.Go(func() {
			if err := w.m.o.Runtime.StopPodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
				errs[i] = fmt.Errorf("stop the pod's sandbox: %w", err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	actual, err := w.m.lister.Pod(ctx, w.uid)
	if err != nil {
		return err
	}
	t.actual = actual
	w.mu.Lock()
	w.actual = actual
	w.mu.Unlock()
	if actual.MayRun() { // also a start that was cut off and has come about since
		return errors.New("something of the pod runs after all has been stopped")
	}
	return w.m.removeCgroup(w.uid) // which the kernel does of none with a process in it
}

// recordDeath writes into the checkpoint, if there is one, that the pod is dead.
func (w *worker) recordDeath(ctx context.Context, t *task) error {
	if !w.saved.started {
		return nil
	}
	point := checkpoint.Checkpoint{Pod: t.pod.DeepCopy(), Dead: true, Verdict: w.verdict, Epoch: w.m.o.Epoch}
	point.Pod.ManagedFields = nil
	err := w.m.checkpoints.Save(w.uid, point)
	if err == nil {
		return nil
	}
	// A full disk, perhaps, and this pod is what has filled it. Its volumes are found by
	// themselves.
	klog.FromContext(ctx).Error(err, "that the pod is dead is not remembered, it is forgotten instead")
	return w.m.checkpoints.Remove(w.uid)
}

// release gives the pod's cards, ports and room to others.
func (w *worker) release() {
	w.m.gpus.Release(w.uid)
	w.mu.Lock()
	w.released = true
	w.mu.Unlock()
	w.m.roomFreed()
}

// nothingToTell reports whether the API knows all that there is to know of a dead pod:
// no container of it was ever made, or it has been told and they have been removed.
func nothingToTell(t *task, verdict *podstatus.Verdict) bool {
	if len(t.actual.Containers) > 0 {
		return false
	}
	neverRan := len(t.pod.Status.ContainerStatuses) == 0
	return t.deleting() && neverRan || podstatus.Terminal(t.pod.Status.Phase) && verdict == nil
}

// removeCgroup takes away the cgroup around a pod's containers, which the runtime
// makes and leaves behind.
func (m *Manager) removeCgroup(uid types.UID) error {
	return cgroup.Remove(cgroup.Mount, crispec.PodCgroup(m.o.CgroupParent, uid))
}
