package csi

import (
	"context"
	"fmt"
	"sync"
)

// locks are one lock a volume, so that no two calls are made for it at once. Who waits
// for one gives up with its context. One that nobody has or waits for is forgotten: a
// machine sees volumes without end.
type locks struct {
	mu  sync.Mutex
	all map[string]*volumeLock
}

type volumeLock struct {
	held  chan struct{}
	users int // who has it or waits for it
}

func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	one := l.use(key)
	select {
	case one.held <- struct{}{}:
		return func() { <-one.held; l.leave(key, one) }, nil
	case <-ctx.Done():
		l.leave(key, one)
		return nil, fmt.Errorf("wait for another pod's call for the same volume: %w", ctx.Err())
	}
}

func (l *locks) use(key string) *volumeLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]*volumeLock{}
	}
	one := l.all[key]
	if one == nil {
		one = &volumeLock{held: make(chan struct{}, 1)}
		l.all[key] = one
	}
	one.users++
	return one
}

func (l *locks) leave(key string, one *volumeLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(l.all, key)
	}
}
