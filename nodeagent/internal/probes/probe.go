package probes

import (
	"context"
	"math/rand/v2"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Event reasons, as the kubelet names them.
const (
	eventUnhealthy = "Unhealthy"
	eventWarning   = "ProbeWarning"
)

// repeatWarnings is how often a warning about the same trouble is said again: a
// probe may fail every second for days.
const repeatWarnings = 2 * time.Minute

// attempts is how often a probe that could not be made at all is tried at once.
const attempts = 3

// probe is one probe of one container. Its goroutine alone uses it.
type probe struct {
	set       *Set
	pod       *corev1.Pod
	subject   *subject
	container Container
	kind      Kind
	spec      *corev1.Probe

	last bool // the last result
	runs int  // how many times in a row
	said string
	when time.Time
}

// run probes until ctx is done, or nothing is left to be found out: the container
// has started, or is to be killed.
func (p *probe) run(ctx context.Context) {
	if p.kind != Startup {
		select {
		case <-ctx.Done():
			return
		case <-p.subject.started:
		}
	}
	clock, period := p.set.o.Clock, max(seconds(p.spec.PeriodSeconds), time.Second)
	delay := seconds(p.spec.InitialDelaySeconds) - clock.Since(p.container.StartedAt)
	if p.container.Before != nil {
		// A restarted agent must not ask all containers of the machine at once.
		delay = max(delay, rand.N(period)) // spreads load, guards nothing
	}
	if delay > 0 {
		select {
		case <-ctx.Done():
			return
		case <-clock.After(delay):
		}
	}
	ticker := clock.NewTicker(period)
	defer ticker.Stop()
	for !p.step(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// step probes once and reports whether that was the last time.
func (p *probe) step(ctx context.Context) (over bool) {
	begin := p.set.o.Clock.Now()
	var a answer
	var err error
	for range attempts {
		if a, err = p.ask(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return true
	}
	counts.note(p, a, err, p.set.o.Clock.Since(begin))
	switch {
	case err != nil:
		// Nothing has been found out, for or against the container.
		p.warn(eventUnhealthy, string(p.kind)+" probe errored and resulted in unknown state: "+err.Error())
		return false
	case !a.ok:
		p.warn(eventUnhealthy, string(p.kind)+" probe failed: "+a.output)
	case a.warning:
		p.warn(eventWarning, string(p.kind)+" probe warning: "+a.output)
	default:
		p.said = ""
	}
	if p.runs == 0 || p.last != a.ok {
		p.last, p.runs = a.ok, 0
	}
	p.runs++
	threshold := p.spec.SuccessThreshold
	if !a.ok {
		threshold = p.spec.FailureThreshold
	}
	if p.runs < int(threshold) {
		return false
	}
	p.set.set(p.subject, p.kind, p.spec, a.ok)
	return p.kind == Startup || p.kind == Liveness && !a.ok
}

// fleeting is what differs in two texts about the same: the local port.
var fleeting = regexp.MustCompile(`:\d+->`)

func (p *probe) warn(reason, message string) {
	now, same := p.set.o.Clock.Now(), fleeting.ReplaceAllString(message, "->")
	if same == p.said && now.Sub(p.when) < repeatWarnings {
		return
	}
	p.said, p.when = same, now
	p.set.o.Warn(p.container.Spec.Name, reason, message)
}
