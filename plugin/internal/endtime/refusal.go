package endtime

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ways are how an end is written.
const ways = "a time of day (08:00), a point in time (2026-11-27T08:00, or RFC 3339 with a zone), a span (30m, 8h, 2d)"

// What people write that is nearly an end: a date, a time of day and a zone, of which each
// may be missing.
var nearly = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})?[ Tt]?(?:(\d{1,2}:\d{2})(:\d{2})?)? ?([A-Za-z][A-Za-z_/+-]*\d*|[+-]\d{1,2}(?::?\d{2})?)?$`)

// refusal says why a text is no end, with one that is where it can be told what was meant.
func refusal(text string, now time.Time) error {
	part := nearly.FindStringSubmatch(text)
	if part == nil {
		part = make([]string, 5)
	}
	date, clock, seconds, zone := part[1], part[2], part[3], part[4]
	day, err := time.ParseInLocation(time.DateOnly, date, now.Location())
	dated := err == nil
	_, err = time.Parse("15:04", clock)
	timed := err == nil && (dated || date == "")
	switch {
	case clock == "24:00" && dated && zone == "":
		return fmt.Errorf("%q is no end: a day ends with 00:00 of the next, write %sT00:00", text, day.AddDate(0, 0, 1).Format(time.DateOnly))
	case clock == "24:00" && date == "" && zone == "":
		return fmt.Errorf("%q is no end: a day ends with 00:00 of the next, write 00:00", text)
	case dated && clock == "" && zone == "":
		return fmt.Errorf("%q is no end: it says no time of that day, write it as in %sT08:00", text, date)
	case timed && zone != "" && !strings.EqualFold(zone, "am") && !strings.EqualFold(zone, "pm"):
		return fmt.Errorf("%q is no end: a zone is written as an offset, behind a date and a time with seconds, as in %s; without one the time is yours (%s)",
			text, zoned(date, clock, seconds, zone, now), now.Format("MST"))
	}
	return fmt.Errorf("%q is no end: write %s or %s", text, ways, None)
}

// zoned is a point in time with a zone as Parse takes it: in the zone that was written if
// that says its offset, else in the person's. Without a date it is the next such time.
func zoned(date, clock, seconds, zone string, now time.Time) string {
	next, err := Parse(strings.TrimSpace(date+" "+clock), now)
	if err != nil {
		next = now
	}
	if seconds == "" {
		seconds = ":00"
	}
	offset := now.Format("Z07:00")
	switch strings.ToUpper(zone) {
	case "Z", "UTC", "GMT":
		offset = "Z"
	}
	for _, form := range []string{"-07:00", "-0700", "-07"} {
		if at, err := time.Parse(form, zone); err == nil {
			offset = at.Format("Z07:00")
		}
	}
	return next.Format("2006-01-02T15:04") + seconds + offset
}
