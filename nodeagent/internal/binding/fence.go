package binding

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// A machine that nobody hears from may be given up (unbind --force) and its pods started
// elsewhere, and it can't know. Where its owner says so, it fences itself: it ends its
// pods once neither the hub nor the target has answered for a set time. The binding
// stays, and pods that the target still has run again when somebody answers.

const (
	// askEvery is the pause between two questions while the machine is fenced.
	askEvery = 10 * time.Second
	// noteEvery is how exactly a restart of the agent knows when somebody answered last.
	noteEvery = time.Minute
)

// hear notes that the hub or the target has answered, whatever it said.
func (b *Binder) hear() {
	if b.o.FenceAfter == 0 {
		return
	}
	now := b.o.Clock.Now()
	b.mu.Lock()
	was := b.heard
	b.heard = now
	note := now.Sub(b.noted) >= noteEvery
	if note {
		b.noted = now
	}
	b.mu.Unlock()
	if note {
		b.o.Store.noteHeard(now)
	}
	if now.Sub(was) >= b.o.FenceAfter {
		b.poke()
	}
}

// noteHeard keeps the time as that of the credential's file: a start after it goes on
// counting. What can't be noted makes a later start fence sooner, not later.
func (s Store) noteHeard(at time.Time) { _ = os.Chtimes(s.State.Credential(), at, at) }

// lastHeard is the time that noteHeard kept; now is where there is none.
func (s Store) lastHeard(now time.Time) time.Time {
	info, err := os.Stat(s.State.Credential())
	if err != nil || info.ModTime().After(now) {
		return now
	}
	return info.ModTime()
}

// unheardFor is how long neither the hub nor the target has answered. A machine that
// slept counts that too: the clock that measures spans stands still meanwhile, the
// calendar's does not.
func (b *Binder) unheardFor() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Clock.Now()
	return max(now.Sub(b.heard), now.Round(0).Sub(b.heard.Round(0)))
}

// untilFence is after how long to look whether to fence: soon, for a timer sleeps when
// the machine does.
func (b *Binder) untilFence() time.Duration {
	if b.o.FenceAfter == 0 {
		return time.Hour
	}
	return min(max(b.o.FenceAfter-b.unheardFor(), 0)+time.Millisecond, askEvery)
}

// fence ends every pod, unless the target answers after all.
func (b *Binder) fence(ctx context.Context) error {
	if b.askTarget(ctx) == nil || b.fenced {
		return nil
	}
	klog.FromContext(ctx).Info("Neither the hub nor the target has answered for too long: every pod is stopped (--fence-after); "+
		"those that the target still has run again when somebody answers", "node", b.o.Joined.Node, "after", b.o.FenceAfter)
	b.stopServing()
	if err := b.o.Tenant.StopAll(ctx); err != nil {
		return fmt.Errorf("stop the pods of a machine that nobody hears from: %w", err)
	}
	b.fenced = true
	return nil
}

// askTarget asks the target anything.
func (b *Binder) askTarget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askEvery/2)
	defer cancel()
	client, err := rest.HTTPClientFor(targetConfig(b.credential.Credential, nil))
	if err != nil {
		return fmt.Errorf("make a client of the target: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.credential.Server+"/version", nil)
	if err != nil {
		return fmt.Errorf("ask the target: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the target: %w", err)
	}
	_ = answer.Body.Close()
	b.hear()
	return nil
}
