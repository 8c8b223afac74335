// Package term reads, as people write it, when a binding ends, and words it as people
// read it.
package term

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// None is what is written for no end; so is nothing at all.
const None = "none"

// forms are points in time without a zone: the person's own is meant.
var forms = []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05"}

var days = regexp.MustCompile(`^(\d+)d`)

// Parse reads when a binding ends; the zero time is none. A time of day is the next
// one of now's zone, a span counts from now.
func Parse(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == None {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.In(now.Location()).Truncate(time.Second), nil // all that a record keeps
	}
	for _, form := range forms {
		if at, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return at, nil
		}
	}
	if at, err := time.Parse("15:04", text); err == nil {
		// By the calendar and not by adding hours: a night may have 23 or 25 of them.
		day := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if !day.After(now) {
			day = time.Date(now.Year(), now.Month(), now.Day()+1, at.Hour(), at.Minute(), 0, 0, now.Location())
		}
		return day, nil
	}
	span, err := parseSpan(strings.TrimPrefix(text, "+"))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no end: write a time of day (08:00), a point in time (2026-11-27 08:00, or RFC 3339 with a zone), a span (8h, 2d) or %s", text, None)
	}
	return now.Add(span).Truncate(time.Second), nil
}

// parseSpan reads a duration as Go writes it, with whole days in front.
func parseSpan(text string) (time.Duration, error) {
	var whole time.Duration
	if found := days.FindStringSubmatch(text); found != nil {
		n, err := strconv.Atoi(found[1])
		if err != nil || n > 10_000 {
			return 0, fmt.Errorf("%q is too long", text)
		}
		whole = time.Duration(n) * 24 * time.Hour
		if text = strings.TrimPrefix(text, found[0]); text == "" {
			return whole, nil
		}
	}
	rest, err := time.ParseDuration(text)
	return whole + rest, err
}

// Check says why a binding can't end at until with that grace, if it can't.
func Check(until time.Time, grace time.Duration, now time.Time) error {
	left := until.Sub(now)
	switch {
	case grace < 0:
		return fmt.Errorf("a drain grace is not negative")
	case left <= 0:
		return fmt.Errorf("%s is in the past: it is %s now", Words(until, now), now.Format("2006-01-02 15:04 MST"))
	case left < grace:
		return fmt.Errorf("%s is sooner than the drain grace of %s: pods would have less time to go than that; give a later end or a shorter grace",
			Words(until, now), grace)
	}
	return nil
}

// Words are a point in time in now's zone, with the date where it is not today's.
func Words(at, now time.Time) string {
	at = at.In(now.Location())
	form := "15:04 MST"
	if at.Second() != 0 {
		form = "15:04:05 MST"
	}
	if y, m, d := at.Date(); y != now.Year() || m != now.Month() || d != now.Day() {
		form = "2006-01-02 " + form
	}
	return at.Format(form)
}

// In is how long it is until then, as kubectl writes it.
func In(at, now time.Time) string {
	if left := at.Sub(now); left > 0 {
		return "in " + duration.HumanDuration(left)
	}
	return duration.HumanDuration(now.Sub(at)) + " ago"
}
