// Package backoff says how long to wait before what has ended is started again, and
// before what has failed is tried again.
package backoff

import "time"

// Crash back-off as the kubelet's: the first restart is at once, then 10 s,
// doubling to 5 minutes; a container that ran for 10 minutes starts over.
const (
	crashFirst = 10 * time.Second
	crashLast  = 5 * time.Minute
	crashReset = 2 * crashLast
)

// Crash is what is remembered of a container that keeps ending.
type Crash struct {
	// Delay is how long after its end the container is started again.
	Delay time.Duration
	// Restarted is when it was started again last.
	Restarted time.Time
}

// AfterCrash decides when a container that ended at finished may be started
// again: at until, and is then remembered as next. known is nil if nothing is
// remembered; attempt is the restart count of the container that ended, and
// created when it was made, from which the delay is rebuilt after a restart of
// the agent.
func AfterCrash(known *Crash, attempt uint32, created, finished time.Time) (until time.Time, delay time.Duration, next func(now time.Time) Crash) {
	if known == nil && attempt > 0 {
		rebuilt := Crash{Delay: crashLast, Restarted: created}
		if attempt <= 5 {
			rebuilt.Delay = min(crashFirst<<(attempt-1), crashLast)
		}
		known = &rebuilt
	}
	if known == nil || finished.Sub(known.Restarted) > crashReset {
		return finished, 0, func(now time.Time) Crash { return Crash{Delay: crashFirst, Restarted: now} }
	}
	doubled := min(2*known.Delay, crashLast)
	return finished.Add(known.Delay), known.Delay, func(now time.Time) Crash {
		return Crash{Delay: doubled, Restarted: now}
	}
}

// Back-off of steps that failed for reasons outside of the pod (a missing
// ConfigMap, a busy runtime): never given up, and never slower than this, since
// nothing tells when the cause is gone.
const (
	RetryFirst = 500 * time.Millisecond
	RetryLast  = 10 * time.Second
)

// Retry is how long to wait after so many failures.
func Retry(failures int) time.Duration {
	if failures > 5 {
		return RetryLast
	}
	return min(RetryFirst<<max(failures-1, 0), RetryLast)
}
