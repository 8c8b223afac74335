package pods

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// What is left of a pod that is dead (dead.go): its volumes, which may be in the way
// for as long as a CSI driver is gone, then its containers and files. Only the end of
// its API object waits for the volumes, as on a kubelet (pkg/kubelet/kubelet.go,
// SyncTerminatedPod).

// settle takes the volumes of a pod that has ended and stays in the API. Its dead
// containers stay, so that their logs can be read.
func (w *worker) settle(ctx context.Context, t *task) (result, error) {
	if err := w.bury(ctx, t); err != nil || w.settled {
		return result{}, err
	}
	if gone, err := w.dismantle(ctx, t); err != nil || !gone {
		return result{more: true}, err
	}
	// It says by which verdict the pod has ended: until the API knows, a restart needs that.
	if told, r := w.toldEnd(ctx, t); !told {
		return r, nil
	}
	if err := w.m.checkpoints.Remove(w.uid); err != nil {
		return result{}, err
	}
	w.settled = true
	return result{}, nil
}

// takeAway ends a deleted pod of which nothing runs: its last status, then volumes, then
// the API object, then what is left on the machine.
func (w *worker) takeAway(ctx context.Context, t *task) (result, error) {
	if err := w.bury(ctx, t); err != nil {
		return result{}, err
	}
	if gone, err := w.dismantle(ctx, t); err != nil || !gone {
		return result{more: true}, err
	}
	if told, r := w.toldEnd(ctx, t); !told {
		return r, nil
	}
	if !t.absent {
		// Not to be interrupted: deleting is what cuts the grace to nothing.
		if err := w.deleteObject(ctx, t.pod); err != nil {
			return result{}, err
		}
	}
	return result{gone: true}, w.clean(ctx, t)
}

// toldEnd waits until the API knows the pod's end. Of one whose object has not been seen in
// this life of the agent nothing was written yet: the list wakes the worker, or the proof
// that the pod is gone.
func (w *worker) toldEnd(ctx context.Context, t *task) (told bool, r result) {
	if t.absent {
		return true, result{}
	}
	if t.pod.ResourceVersion == "" {
		return false, result{}
	}
	inner, done := w.interruptible(ctx, t.seen)
	defer done()
	if w.writer.Flush(inner) != nil {
		return false, result{more: true}
	}
	return true, result{}
}

// dismantle takes the volumes away, and returns whether they are gone or when there is
// news of the pod: a driver may take minutes to answer, and what the API tells meanwhile
// must not wait.
func (w *worker) dismantle(ctx context.Context, t *task) (gone bool, err error) {
	if w.taking == nil {
		taking := make(chan error, 1)
		w.taking = taking
		w.m.live.Go(func() { taking <- w.m.o.Volumes.Teardown(ctx, w.uid) })
	}
	select {
	case err = <-w.taking:
		w.taking = nil
	case <-w.wake:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil && t.pod.Name != "" {
		w.tell(podRef(t.pod), eventFailedUnmount, eventFailedUnmount, err.Error(), err.Error())
	}
	// Who waits for the pod's end waits for the first try: an eviction for the disk, a
	// machine's shutdown for what is not written yet.
	w.isOver()
	return err == nil, err
}

// isOver tells those who wait for the pod's end.
func (w *worker) isOver() {
	select {
	case <-w.over:
	default:
		close(w.over)
	}
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
		os.RemoveAll(w.m.files.Folder(w.uid)),
		w.m.checkpoints.Remove(w.uid),
	)
}

// leftovers are pods of which nothing is known but that they have volumes: their
// binding ended while a driver was gone, or their checkpoint can't be read. Callers
// hold mu.
func (m *Manager) leftovers() ([]types.UID, error) {
	all, err := m.o.Volumes.PodUIDs()
	var uids []types.UID
	for _, uid := range all {
		if _, known := m.workers[uid]; !known {
			uids = append(uids, uid)
		}
	}
	return uids, err
}
