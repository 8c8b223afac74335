package pods

import (
	"time"
)

// Crash back-off as the kubelet's: the first restart is at once, then 10 s,
// doubling to 5 minutes; a container that ran for 10 minutes starts over.
const (
	crashFirst = 10 * time.Second
	crashLast  = 5 * time.Minute
	crashReset = 2 * crashLast
)

// crash is what is remembered of a container that keeps ending.
type crash struct {
	// delay is how long after its end the container is started again.
	delay time.Duration
	// restarted is when it was started again last.
	restarted time.Time
}

// crashBackOff decides when a container that ended at finished may be started
// again: at until, and is then remembered as next. known is nil if nothing is
// remembered; attempt is the restart count of the container that ended, and
// created when it was made, from which the delay is rebuilt after a restart of
// the agent.
func crashBackOff(known *crash, attempt uint32, created, finished time.Time) (until time.Time, delay time.Duration, next func(now time.Time) crash) {
	if known == nil && attempt > 0 {
		rebuilt := crash{delay: crashLast, restarted: created}
		if attempt <= 5 {
			rebuilt.delay = min(crashFirst<<(attempt-1), crashLast)
		}
		known = &rebuilt
	}
	if known == nil || finished.Sub(known.restarted) > crashReset {
		return finished, 0, func(now time.Time) crash { return crash{delay: crashFirst, restarted: now} }
	}
	doubled := min(2*known.delay, crashLast)
	return finished.Add(known.delay), known.delay, func(now time.Time) crash {
		return crash{delay: doubled, restarted: now}
	}
}

// Back-off of steps that failed for reasons outside of the pod (a missing
// ConfigMap, a busy runtime): never given up, and never slower than this, since
// nothing tells when the cause is gone.
const (
	retryFirst = 500 * time.Millisecond
	retryLast  = 10 * time.Second
)

func retryAfter(failures int) time.Duration {
	if failures > 5 {
		return retryLast
	}
	return min(retryFirst<<max(failures-1, 0), retryLast)
}
