// Package endtime reads, as people write it, when a binding ends, and words it as people
// read it.
package endtime

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// None is what is written for no end. Nothing at all is not: it is mostly a variable that
// a script has not set.
const None = "none"

// forms are points in time without a zone: the person's own is meant.
var forms = []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05"}

var days = regexp.MustCompile(`^(\d+)d`)

// Parse reads when a binding ends; the zero time is none. A time of day is the next
// one of now's zone, a span counts from now.
func Parse(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return time.Time{}, fmt.Errorf("it is empty: write %s, or %s, which takes an end away", ways, None)
	case strings.EqualFold(text, None):
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
		return time.Time{}, refusal(text, now)
	}
	return now.Add(span).Truncate(time.Second), nil
}

// ParseGrace reads how long before an end pods are sent away, written as the spans of
// Parse are.
func ParseGrace(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, errors.New("it is empty: write a span (90s, 30m, 2d)")
	}
	grace, err := parseSpan(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no span: write one as in 90s, 30m, 8h or 2d", text)
	case grace < 0:
		return 0, fmt.Errorf("%q is negative: it is how long before the end pods are sent away, as in 30m", text)
	}
	return grace, nil
}

// parseSpan reads a duration as Go writes it, with whole days in front.
func parseSpan(text string) (time.Duration, error) {
	var span time.Duration
	rest, negative := strings.CutPrefix(text, "-")
	found := days.FindStringSubmatch(rest)
	if found != nil {
		n, err := strconv.Atoi(found[1])
		if err != nil || n > 10_000 {
			return 0, fmt.Errorf("%q is too long", text)
		}
		span, rest = time.Duration(n)*24*time.Hour, strings.TrimPrefix(rest, found[0])
	}
	if found == nil || rest != "" {
		more, err := time.ParseDuration(rest)
		if err == nil && (strings.ContainsAny(rest, "+-") || span+more < span) {
			err = fmt.Errorf("%q has a second sign, or is too long", text)
		}
		if err != nil {
			return 0, err
		}
		span += more
	}
	if negative {
		span = -span
	}
	return span, nil
}

// Check says why a binding can't end at until with that grace, if it can't. What was
// written as a span of now leaves all of that span.
func Check(until time.Time, grace time.Duration, now time.Time) error {
	left := until.Sub(now.Truncate(time.Second)) // as until is: a record keeps no more
	switch {
	case left <= 0:
		return fmt.Errorf("%s is in the past: it is %s now", Words(until, now), now.Format("2006-01-02 15:04 MST"))
	case left < grace:
		return fmt.Errorf("%s is sooner than the drain grace of %s: pods would have less time to go than that; give a later end, or a shorter --drain-grace",
			Words(until, now), grace)
	}
	return nil
}

// Drains says what becomes of the pods of a binding that ends at until.
func Drains(until time.Time, grace time.Duration, now time.Time) string {
	if grace <= 0 {
		return "pods are ended then, without a grace period"
	}
	return "pods are evicted from " + Words(until.Add(-grace), now) + " on"
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
