package gpuhealth

import "time"

const (
	// probation is how long a card has to be quiet before pods get it again; each
	// relapse doubles it, up to longestProbation. A card that was good for longer
	// than that begins anew.
	probation        = 10 * time.Minute
	longestProbation = 24 * time.Hour
)

// record is what is remembered of a card that failed; pure.
type record struct {
	// Out says that pods do not get the card.
	Out bool `json:"out"`
	// Class, Reason and Text are of the worst fault since the card went out.
	Class  Class  `json:"class"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
	// Boot is that of the last fault.
	Boot string `json:"boot"`
	// Since is when the card went out, Last when it failed last, Back when it came
	// back.
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
	Back  time.Time `json:"back,omitzero"`
	// Times counts how often it went out in a row.
	Times int `json:"times"`
}

// fault notes a fault, which is none of the application's.
func (r record) fault(now time.Time, boot string, f Fault) record {
	if !r.Out {
		if now.Sub(r.Back) > longestProbation {
			r.Times = 0
		}
		r = record{Out: true, Since: now, Class: f.Class, Reason: f.Reason, Text: f.Message, Times: r.Times + 1}
	}
	if f.Class.rank() > r.Class.rank() {
		r.Class, r.Reason, r.Text = f.Class, f.Reason, f.Message
	}
	r.Last, r.Boot = now, boot
	return r
}

// probation is how long the card has to be quiet.
func (r record) probation() time.Duration {
	p := probation
	for i := 1; i < r.Times && p < longestProbation; i++ {
		p *= 2
	}
	return min(p, longestProbation)
}

// back lets the card, which answers and of which the driver asks nothing, come back
// if its time has come.
func (r record) back(now time.Time, boot string) record {
	switch {
	case !r.Out, r.Class == Replace, r.Class == Drain && r.Boot == boot, now.Sub(r.Last) < r.probation():
		return r
	}
	r.Out, r.Back = false, now
	return r
}

// vouch takes the verdict back that the card is to be replaced, if it has not failed
// since somebody asked for that. It has to be quiet from then on.
func (r record) vouch(asked time.Time) record {
	if !r.Out || r.Class != Replace || r.Last.After(asked) {
		return r
	}
	r.Class, r.Last = Reset, asked
	r.Text += " (vouched for by hand since)"
	return r
}

// until says, for people, what the card of that UUID waits for.
func (r record) until(uuid string) string {
	switch r.Class {
	case Replace:
		return "out until it is replaced, or, if it is well after all, until somebody types on the machine: ainode-agent readmit " + uuid
	case Drain:
		return "out until the machine boots again"
	default:
		return "out until it was quiet for " + r.probation().String()
	}
}
