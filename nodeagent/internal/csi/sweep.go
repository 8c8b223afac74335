package csi

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// What can't be unstaged is tried again as pods' own steps are.
const (
	retryFirst = 500 * time.Millisecond
	retryLast  = 10 * time.Second
)

// trial is how a volume's unstaging goes.
type trial struct {
	running bool
	wait    time.Duration
	at      time.Time // of the next
}

// Run unstages what no pod wants any more, until ctx ends, and first of all what an
// agent has left that was killed.
func (m *Manager) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		next := m.sweep(ctx, &running)
		var again <-chan time.Time
		if !next.IsZero() {
			again = m.o.Clock.After(max(0, next.Sub(m.o.Clock.Now())))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.swept:
		case <-again:
		}
	}
}

// sweep begins to unstage what is staged for nobody, and returns when to look again.
// Each has a goroutine of its own: a driver that hangs holds up no other's volumes.
func (m *Manager) sweep(ctx context.Context, running *sync.WaitGroup) (next time.Time) {
	now := m.o.Clock.Now()
	staged, err := m.staged()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Some volumes that may be staged are not known")
	}
	pods, err := m.ofPods("")
	if err != nil {
		klog.FromContext(ctx).Error(err, "Nothing is unstaged while it is not known which pods have what")
		return now.Add(retryLast)
	}
	used := map[string]bool{}
	for _, r := range pods {
		used[r.key()] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range staged {
		t := m.trials[r.dir]
		switch {
		case used[r.key()] || t.running:
		case now.Before(t.at):
			if next.IsZero() || t.at.Before(next) {
				next = t.at
			}
		default:
			t.running = true
			m.trials[r.dir] = t
			running.Go(func() { m.try(ctx, r) })
		}
	}
	return next
}

// try unstages one volume and notes what came of it.
func (m *Manager) try(ctx context.Context, r *record) {
	err := m.unstage(ctx, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trials[r.dir]
	delete(m.trials, r.dir)
	if err == nil {
		_ = os.Remove(filepath.Dir(r.dir)) // the driver's, if it was its last
		m.tell(r)
		poke(m.swept)
		return
	}
	if ctx.Err() != nil {
		return
	}
	if t.wait == 0 {
		klog.FromContext(ctx).Info("A volume that no pod uses any more is not unstaged yet", "driver", r.Driver, "volume", r.Handle, "cause", err)
	}
	wait := min(max(2*t.wait, retryFirst), retryLast)
	m.trials[r.dir] = trial{wait: wait, at: m.o.Clock.Now().Add(wait)}
	poke(m.swept)
}
