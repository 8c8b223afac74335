package csi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// Run undoes what no pod wants any more, until ctx ends: what is staged for nobody, what
// was published for pods that are gone with their binding, and first of all what an agent
// has left that was killed.
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

// sweep begins to undo what is there for nobody, and returns when to look again. Each
// has a goroutine of its own: a driver that hangs holds up no other's volumes.
func (m *Manager) sweep(ctx context.Context, running *sync.WaitGroup) (next time.Time) {
	now := m.o.Clock.Now()
	staged, err := m.staged()
	pods, podsErr := m.ofPods("")
	if err := errors.Join(err, podsErr); err != nil {
		klog.FromContext(ctx).Error(err, "Some volumes that may be mounted are not known")
	}
	m.tellDamaged(ctx, append(slices.Clone(staged), pods...))
	gone := slices.DeleteFunc(pods, func(r *record) bool { return r.Abandoned != yes })
	used, err := m.used()
	if err != nil {
		klog.FromContext(ctx).V(1).Info("Nothing is unstaged while it is not known which pods have what", "cause", err)
		staged, next = nil, now.Add(retryLast)
	}
	staged = slices.DeleteFunc(staged, func(r *record) bool { return r.damaged != nil || used[r.key()] })
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range append(gone, staged...) {
		t := m.trials[r.dir]
		switch {
		case t.running:
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

// tellDamaged tells of records that can't be read, each once.
func (m *Manager) tellDamaged(ctx context.Context, records []*record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		if r.damaged != nil && !m.told[r.dir] {
			m.told[r.dir] = true
			klog.FromContext(ctx).Error(r.damaged, "What is known of a volume is damaged; it is left as it is", "folder", r.dir)
		}
	}
}

// try undoes one volume and notes what came of it.
func (m *Manager) try(ctx context.Context, r *record) {
	var err error
	if r.Abandoned == yes {
		err = m.unpublishAbandoned(ctx, r)
	} else {
		err = m.unstage(ctx, r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trials[r.dir]
	delete(m.trials, r.dir)
	if err == nil {
		m.removeEmpty(r)
		m.tell(r)
		poke(m.swept)
		return
	}
	if ctx.Err() != nil {
		return
	}
	if t.wait == 0 {
		klog.FromContext(ctx).Info("A volume that no pod uses any more is not unmounted yet", "driver", r.Driver, "volume", r.Handle, "cause", err)
	}
	wait := min(max(2*t.wait, retryFirst), retryLast)
	m.trials[r.dir] = trial{wait: wait, at: m.o.Clock.Now().Add(wait)}
	poke(m.swept)
}

// removeEmpty removes the folders above a record that is gone, if it was their last: the
// driver's of what was staged, the pod's of what was published.
func (m *Manager) removeEmpty(r *record) {
	top := m.stagingsDir()
	if r.Abandoned == yes {
		top = m.podsDir()
	}
	for dir := filepath.Dir(r.dir); dir != top; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			return
		}
	}
}
