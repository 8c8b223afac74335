package images

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// The kubelet's image back-off: it begins with the first, doubles, and is forgotten
// after twice the last without a failure.
const (
	firstDelay = 10 * time.Second
	lastDelay  = 5 * time.Minute
)

type backOffKey struct {
	uid   types.UID
	image string
}

// backOff keeps failed pulls apart by pod and image: another pod may have better
// credentials.
type backOff struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	waits map[backOffKey]*wait
}

type wait struct {
	delay time.Duration
	until time.Time
	cause string
	// first says that nobody was told yet.
	first bool
}

func newBackOff(c clock.PassiveClock) *backOff {
	return &backOff{clock: c, waits: map[backOffKey]*wait{}}
}

// inForce returns the wait that forbids a try now, or nil.
func (b *backOff) inForce(key backOffKey) *wait {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.waits[key]
	if known == nil || !b.clock.Now().Before(known.until) {
		return nil
	}
	found := *known
	known.first = false
	return &found
}

// next notes a failure and returns when the next try may be.
func (b *backOff) next(key backOffKey, cause string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	for k, w := range b.waits {
		if now.Sub(w.until) > 2*lastDelay {
			delete(b.waits, k)
		}
	}
	delay := firstDelay
	if known := b.waits[key]; known != nil {
		delay = min(2*known.delay, lastDelay)
	}
	b.waits[key] = &wait{delay: delay, until: now.Add(delay), cause: cause, first: true}
	return now.Add(delay)
}

func (b *backOff) forget(key backOffKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waits, key)
}
