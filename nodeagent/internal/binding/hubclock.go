package binding

import (
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"golang.org/x/sys/unix"
)

// hubClock knows what time it is at the hub, also while that is silent: each of its
// answers is dated, exact to a second, and from then on the kernel counts. It counts on
// while the machine sleeps, whatever the calendar is set to, until it boots anew.
type hubClock struct {
	// running is how long the machine has been running, sleep included.
	running func() time.Duration
	// save keeps when the machine was started, for an agent that starts again. What it
	// could not keep is tried again with the next answer.
	save func(started time.Time) error

	mu      sync.Mutex
	at      time.Time // of the last answer
	started time.Time // the machine was, by the hub's time; zero: not heard of
	saved   time.Time
}

// drift is how far the hub's clock may be set by before it is worth a write.
const drift = 10 * time.Second

// last is when the hub answered last, by its own clock; zero where it did not say.
func (c *hubClock) last() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// now is what time it is at the hub; false if it has not answered since the boot.
func (c *hubClock) now() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started.Add(c.running()), !c.started.IsZero()
}

func (c *hubClock) answered(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.started = at, at.Add(-c.running())
	if c.started.Sub(c.saved).Abs() > drift && c.save(c.started) == nil {
		c.saved = c.started
	}
}

// wrap is a rest.Config's WrapTransport.
func (c *hubClock) wrap(rt http.RoundTripper) http.RoundTripper {
	return &datedTransport{clock: c, base: rt}
}

type datedTransport struct {
	clock *hubClock
	base  http.RoundTripper
}

var _ utilnet.RoundTripperWrapper = (*datedTransport)(nil)

func (d *datedTransport) WrappedRoundTripper() http.RoundTripper { return d.base }

func (d *datedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := d.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if at, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		d.clock.answered(at)
	}
	return answer, nil
}

// running is how long this machine has been running, sleep included (clock_gettime(2),
// CLOCK_BOOTTIME).
func running() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // fails for a clock that there is not
	return time.Duration(t.Nano())
}

// boot is when a boot of this machine was, by the hub's time.
type boot struct {
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
}

// Started reads when the machine was started by the hub's time; zero if that was not
// heard of since the boot of that id.
func (s Store) Started(id string) (time.Time, error) {
	var b boot
	err := readJSON(s.State.Boot(), &b)
	if errors.Is(err, fs.ErrNotExist) || err == nil && b.ID != id {
		return time.Time{}, nil
	}
	return b.Started, err
}

// SaveStarted stores it.
func (s Store) SaveStarted(id string, at time.Time) error {
	return writeJSON(s.State.Boot(), boot{id, at})
}
