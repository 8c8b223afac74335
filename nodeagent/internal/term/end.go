// Package term ends a binding that has an end: pods are told in time, evicted, and
// ended by the node itself at last, so that the machine is free when it should be.
package term

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// End is when a binding ends; the zero End is none.
type End struct {
	// Until is when the machine is free.
	Until time.Time `json:"until"`
	// DrainGrace is how long before that nothing new comes and pods are evicted.
	DrainGrace time.Duration `json:"drainGrace"`
}

// Equal reports whether two ends are the same, whatever zone they are written in.
func (e End) Equal(o End) bool { return e.Until.Equal(o.Until) && e.DrainGrace == o.DrainGrace }

// IsZero reports whether there is no end.
func (e End) IsZero() bool { return e.Until.IsZero() }

// Stage is how far a binding is towards its end.
type Stage int

// The stages, in order.
const (
	// Open: it has no end, or one that is far away.
	Open Stage = iota
	// Announced: pods are told.
	Announced
	// Draining: nothing new comes, pods are evicted, and ended when it is time.
	Draining
	// Over: whatever runs is ended at once.
	Over
)

// Pods are told of the end an hour before, and some minutes before they are sent away.
const notice, noticeOfDrain = time.Hour, 10 * time.Minute

// announce is when pods are told.
func (e End) announce() time.Time { return e.Until.Add(-max(notice, e.DrainGrace+noticeOfDrain)) }

// drain is when draining begins.
func (e End) drain() time.Time { return e.Until.Add(-e.DrainGrace) }

// Stage is the stage at a time.
func (e End) Stage(now time.Time) Stage {
	switch {
	case e.IsZero():
		return Open
	case !now.Before(e.Until):
		return Over
	case !now.Before(e.drain()):
		return Draining
	case !now.Before(e.announce()):
		return Announced
	}
	return Open
}

// next is how long the stage of now lasts.
func (e End) next(now time.Time) time.Duration {
	switch e.Stage(now) {
	case Open:
		return e.announce().Sub(now)
	case Announced:
		return e.drain().Sub(now)
	}
	return max(e.Until.Sub(now), 0)
}

// graceDefault is the API's default for terminationGracePeriodSeconds.
const graceDefault = 30 * time.Second

// endOf is when a pod must be told to end, so that it has its grace and is over at
// Until; not before draining begins, however long its grace. A pod that is being
// deleted is left alone if it is over by then.
func (e End) endOf(pod *corev1.Pod) time.Time {
	if pod.DeletionTimestamp != nil {
		if pod.DeletionTimestamp.After(e.Until) {
			return e.drain()
		}
		return e.Until
	}
	grace := graceDefault
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	return e.Until.Add(-min(grace, e.DrainGrace))
}

// maxSkew is how far a machine's clock may be from the hub's. One of two that are further
// apart is wrong, and nobody can tell which.
const maxSkew = 2 * time.Minute

// Agree reports whether a machine's clock is near enough to the hub's.
func Agree(local, hub time.Time) bool { return local.Sub(hub).Abs() <= maxSkew }

// Agreed is the time by which a binding ends: the machine's, and while the two do not
// agree the one that comes to its end later. A clock that is wrong ends nothing early.
func Agreed(local, hub time.Time) time.Time {
	if Agree(local, hub) || local.Before(hub) {
		return local
	}
	return hub
}

// Disagree says in words that the clocks do not agree.
func Disagree(local, hub time.Time) string {
	by, side := local.Sub(hub), "ahead of"
	if by < 0 {
		by, side = -by, "behind"
	}
	return fmt.Sprintf("the machine's clock is %s %s the hub's: the binding ends when both say that it is time (set the one that is wrong, above all by NTP)",
		by.Round(time.Minute), side)
}
