package pods

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/admission"
	"github.com/ainode/ainode/nodeagent/internal/checkpoint"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/gpuallocation"
	"github.com/ainode/ainode/nodeagent/internal/podfiles"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// leavesWithin is how long Run waits for what it has begun. Everything ends with its
// context but a system call that the kernel keeps waiting: an unmount, say.
const leavesWithin = 10 * time.Second

// relistEvery is how often every pod is looked at although nothing was heard of it.
const relistEvery = time.Minute

// Manager runs the pods of one node.
type Manager struct {
	o           Options
	lister      *cri.Lister
	checkpoints checkpoint.Store
	files       podfiles.Files
	gpus        *gpuallocation.Allocator
	// volumesWithin is how long StopAll tries to take volumes away.
	volumesWithin time.Duration

	mu      sync.Mutex
	workers map[types.UID]*worker
	// over are the pods that have been taken away, until the API says so too.
	over map[types.UID]bool
	// running is Run's context while it runs, and waits for its workers.
	running context.Context
	live    sync.WaitGroup
}

// New makes a Manager; it names every missing option.
func New(o Options) (*Manager, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	return &Manager{
		o: o, volumesWithin: volumesWithin, lister: cri.NewLister(o.Runtime),
		checkpoints: checkpoint.Store{Dir: o.StateDir}, files: podfiles.Files{Dir: o.PodDir, HostsFile: o.HostsFile},
		gpus: gpuallocation.New(o.Cards.Device), workers: map[types.UID]*worker{}, over: map[types.UID]bool{},
	}, nil
}

// Run takes over the pods that the runtime holds, then watches the API and the
// runtime and runs the node's pods until ctx is done. It leaves pods running when
// it returns, and works while the API does not answer. An unmount that the kernel keeps
// waiting goes on behind it (StopAll tells of it). Run it once.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, cri.Quiet(klog.FromContext(ctx))))
	defer cancel()
	m.mu.Lock()
	if m.running != nil {
		m.mu.Unlock()
		return fmt.Errorf("run the pod manager: it has been run already")
	}
	m.running = ctx
	m.mu.Unlock()
	defer func() { cancel(); m.leave(ctx) }()

	if err := m.adopt(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	m.live.Go(func() { cri.Watch(ctx, m.o.Runtime, m.o.Clock, m.runtimeChanged) })
	m.live.Go(func() { m.relist(ctx) })
	return m.watchAPI(ctx)
}

// leave waits until what Run has begun has ended; ctx has.
func (m *Manager) leave(ctx context.Context) {
	ended := make(chan struct{})
	go func() { m.live.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-m.o.Clock.After(leavesWithin):
		klog.FromContext(ctx).Info("What looks after pods ends though the kernel keeps something of it waiting", "after", leavesWithin)
	}
}

// runtimeChanged makes the worker of the pod look again, all for the empty UID.
func (m *Manager) runtimeChanged(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if uid != "" {
		if w, ok := m.workers[uid]; ok {
			w.look()
		}
		return
	}
	for _, w := range m.workers {
		w.look()
	}
}

func (m *Manager) relist(ctx context.Context) {
	ticker := m.o.Clock.NewTicker(relistEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			m.runtimeChanged("")
		}
	}
}

// launch starts a worker. Callers hold mu.
func (m *Manager) launch(w *worker) {
	m.workers[w.uid] = w
	ctx := m.running
	m.live.Go(func() { w.run(ctx) })
}

// forget drops the worker of a pod that is gone from everywhere.
func (m *Manager) forget(w *worker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.workers[w.uid] == w {
		delete(m.workers, w.uid)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deleted && !w.goneSeen {
		m.over[w.uid] = true
	}
}

// observe takes note of a pod of the API.
func (m *Manager) observe(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w, ok := m.workers[pod.UID]; ok {
		w.observe(pod)
		return
	}
	if m.over[pod.UID] {
		return // old news
	}
	w := newWorker(m, pod.UID)
	w.daemonSet = admission.OfDaemonSet(pod)
	if !w.daemonSet {
		m.judge(w, pod)
	}
	w.observe(pod)
	m.launch(w)
}

// judge admits a pod or refuses it. What was admitted once (it has a start time)
// is never judged again. Callers hold mu, so that two pods do not get one place.
func (m *Manager) judge(w *worker, pod *corev1.Pod) {
	if podstatus.Terminal(pod.Status.Phase) {
		w.released = true
		return
	}
	if pod.DeletionTimestamp != nil {
		return
	}
	if pod.Status.StartTime != nil {
		// Whoever may write a pod's status could make it look admitted.
		w.verdict = admission.Defend(pod)
	} else {
		w.fresh = true // else its sandbox or checkpoint had been found at the start
		if reason, message := m.o.Admit(pod); reason != "" {
			w.verdict = admission.Refuse(reason, message)
		} else {
			w.verdict = admission.Admit(pod, m.o.Node(), m.others(pod.UID), m.shared(), m.o.ReservedPorts)
		}
	}
	if w.verdict == nil {
		cards, err := m.gpus.Assign(pod, m.o.Cards.Devices(), m.o.Cards.Topology())
		if err != nil {
			w.verdict = admission.OutOfCards(err)
		}
		w.cards = cards
	}
	if w.verdict != nil {
		w.released = true
		w.event(podRef(pod), corev1.EventTypeWarning, w.verdict.Reason, w.verdict.Message[len(admission.RejectedPrefix):])
		klog.FromContext(m.running).Info("pod refused", "pod", klog.KObj(pod), "reason", w.verdict.Reason)
	}
}

// others are the pods that count: admitted, and something of them may live.
// Callers hold mu.
func (m *Manager) others(but types.UID) []*corev1.Pod {
	var pods []*corev1.Pod
	for uid, w := range m.workers {
		w.mu.Lock()
		switch {
		case uid == but || w.pod == nil || w.released || w.daemonSet:
		default:
			pods = append(pods, w.granted.in(w.pod))
		}
		w.mu.Unlock()
	}
	return pods
}

// GPUsInUse is how many cards are given, whole or in slices, to pods whose processes may
// still live.
func (m *Manager) GPUsInUse() int { return m.gpus.InUse() }
