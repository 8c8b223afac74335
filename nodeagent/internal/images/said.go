package images

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// sayAgain is how often a warning about the same trouble of a container is said.
const sayAgain = 2 * time.Minute

// said remembers warnings: a container without an image is tried again and again.
type said struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	at    map[saidKey]time.Time
}

type saidKey struct {
	uid            types.UID
	field, message string
}

func newSaid(c clock.PassiveClock) *said { return &said{clock: c, at: map[saidKey]time.Time{}} }

// again reports whether the warning was said lately, and else notes it.
func (s *said) again(key saidKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for k, at := range s.at {
		if now.Sub(at) >= sayAgain {
			delete(s.at, k)
		}
	}
	if _, known := s.at[key]; known {
		return true
	}
	s.at[key] = now
	return false
}
