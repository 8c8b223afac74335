package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// ErrVolumesLeft says that every pod has ended, and that not all of their volumes could
// be taken away: a CSI driver is gone or hangs, or a process of the machine uses one.
var ErrVolumesLeft = errors.New("volumes are left")

// volumesWithin is how long StopAll tries to take volumes away: longer than it takes to
// give a driver up (Volumes.Abandon).
const volumesWithin = 45 * time.Second

// StopAll ends every pod of this agent, whatever its epoch, each within grace, and
// removes sandboxes, volumes and remembered state. It returns when the last process
// has ended, or an error that says what is left: call it again then. Of volumes alone
// that is an ErrVolumesLeft, half a minute later; only what a CSI driver has mounted that
// does not undo it soon is no error and left to later: it is recorded. It needs no API.
// Call it when Run has returned.
func (m *Manager) StopAll(ctx context.Context, grace time.Duration) error {
	if err := m.stopPods(ctx, grace); err != nil {
		return fmt.Errorf("stop all pods: %w", err)
	}
	m.gpus.Clear()
	m.mu.Lock()
	clear(m.workers)
	m.mu.Unlock()
	// What can't be read is forgotten like the rest: nothing of it lives. Volumes tell of
	// themselves.
	if err := errors.Join(m.checkpoints.Clear(), m.takeVolumes(ctx)); err != nil {
		return fmt.Errorf("stop all pods: %w", err)
	}
	return nil
}

func (m *Manager) stopPods(ctx context.Context, grace time.Duration) error {
	actual, err := m.lister.Pods(ctx)
	if err != nil {
		return err
	}
	var ours []*cri.Pod
	for _, pod := range actual {
		if _, ok := epochOf(pod); ok {
			ours = append(ours, pod)
		}
	}
	return m.endPods(ctx, ours, grace)
}

// takeVolumes takes all volumes away, those of all pods at once, in the time there is
// for that.
func (m *Manager) takeVolumes(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, m.volumesWithin)
	defer cancel()
	uids, err := m.o.Volumes.PodUIDs()
	errs := make([]error, len(uids))
	var all sync.WaitGroup
	for i, uid := range uids {
		all.Go(func() { errs[i] = m.takeVolumesOf(limited, uid) })
	}
	all.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("%w: %w", ErrVolumesLeft, err)
	}
	return nil
}

// takeVolumesOf returns soon after ctx has ended, though the kernel may keep an unmount
// waiting for as long as it likes.
func (m *Manager) takeVolumesOf(ctx context.Context, uid types.UID) error {
	done := make(chan error, 1)
	go func() { done <- m.o.Volumes.Abandon(ctx, uid) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // it knows best what it waited for
		return err
	case <-m.o.Clock.After(time.Second):
		return fmt.Errorf("take away the volumes of pod %q: this still waits: %w", uid, ctx.Err())
	}
}

// endPods ends pods by what the runtime knows of them alone, all at once, and
// removes them. Their volumes stay.
func (m *Manager) endPods(ctx context.Context, pods []*cri.Pod, grace time.Duration) error {
	errs := make([]error, len(pods))
	var all sync.WaitGroup
	for i, pod := range pods {
		all.Go(func() {
			if err := m.endPod(ctx, pod, grace); err != nil {
				errs[i] = fmt.Errorf("end pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (m *Manager) endPod(ctx context.Context, pod *cri.Pod, grace time.Duration) error {
	seconds := int64(max(grace, graceLeast).Round(time.Second) / time.Second)
	errs := make([]error, len(pod.Containers))
	var all sync.WaitGroup
	for i, c := range pod.Containers {
		if !cri.Live(c) {
			continue
		}
		all.Go(func() {
			if err := m.o.Runtime.StopContainer(ctx, c.Id, seconds); err != nil && !cri.IsNotFound(err) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range pod.Sandboxes {
		if err := m.o.Runtime.StopPodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
			return err
		}
	}
	if err := m.removeCgroup(pod.UID); err != nil { // while the runtime still tells of the pod
		return err
	}
	for _, s := range pod.Sandboxes {
		if err := m.o.Runtime.RemovePodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
			return err
		}
	}
	for _, c := range pod.Containers {
		m.lister.Forget(c.Id)
	}
	return errors.Join(
		os.RemoveAll(m.files.Folder(pod.UID)),
		m.checkpoints.Remove(pod.UID),
		os.RemoveAll(m.logDirectory(stub(pod))),
	)
}
