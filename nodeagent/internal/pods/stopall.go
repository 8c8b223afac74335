package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ainode/ainode/nodeagent/internal/cri"
)

// StopAll ends every pod of this agent, whatever its epoch, each within grace, and
// removes sandboxes, volumes and remembered state. It returns when the last process
// has ended, or an error that says what is left: call it again then. Only what a CSI
// driver has mounted that does not undo it soon is left to later. It needs no API. Call it when Run has returned.
func (m *Manager) StopAll(ctx context.Context, grace time.Duration) error {
	if err := m.stopAllOnce(ctx, grace); err != nil {
		return fmt.Errorf("stop all pods: %w", err)
	}
	m.gpus.clear()
	m.mu.Lock()
	clear(m.workers)
	m.mu.Unlock()
	return nil
}

func (m *Manager) stopAllOnce(ctx context.Context, grace time.Duration) error {
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
	if err := m.endPods(ctx, ours, grace); err != nil {
		return err
	}
	uids, err := m.o.Volumes.PodUIDs()
	if err != nil {
		return err
	}
	errs := make([]error, len(uids))
	var all sync.WaitGroup
	for i, uid := range uids {
		all.Go(func() { errs[i] = m.o.Volumes.Abandon(ctx, uid) })
	}
	all.Wait()
	// What can't be read is forgotten like the rest: nothing of it lives.
	return errors.Join(append(errs, m.checkpoints.clear())...)
}

// endPods ends pods by what the runtime knows of them alone, all at once, and
// removes them.
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
		if !live(c) {
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
		if err := m.o.Runtime.RemovePodSandbox(ctx, s.Id); err != nil && !cri.IsNotFound(err) {
			return err
		}
	}
	for _, c := range pod.Containers {
		m.lister.Forget(c.Id)
	}
	return errors.Join(
		m.removeCgroup(pod.UID),
		m.o.Volumes.Abandon(ctx, pod.UID),
		os.RemoveAll(m.messages.folder(pod.UID)),
		m.checkpoints.remove(pod.UID),
		os.RemoveAll(m.logDirectory(stub(pod))),
	)
}
