package term

import "sync"

// Known is the end of this machine's binding as it is known here: set by who reads the
// record, followed by who acts. The zero value knows of none.
type Known struct {
	// News is called when the end comes nearer or is called off. May be nil.
	News func()

	mu       sync.Mutex
	end      End
	changed  chan struct{}
	stage    Stage
	finished bool
}

// Set takes an end over.
func (k *Known) Set(end End) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end.Equal(end) {
		return
	}
	k.end, k.stage, k.finished = end, Open, false
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// Get is the end, and what is closed when it is another.
func (k *Known) Get() (End, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.end, k.changed
}

// Leaving reports whether pods are being sent away.
func (k *Known) Leaving() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stage >= Draining
}

// Finished reports whether the end has come and no pod has any process left.
func (k *Known) Finished() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.finished
}

// reached notes how far end has come; one that was replaced meanwhile is of no matter.
func (k *Known) reached(end End, stage Stage, finished bool) {
	k.mu.Lock()
	news := k.end.Equal(end) && (k.stage != stage || k.finished != finished)
	if news {
		k.stage, k.finished = stage, finished
	}
	k.mu.Unlock()
	if news && k.News != nil {
		k.News()
	}
}
