// Package progress tells a person how far a long command is. A terminal sees a
// line that moves, a pipe one line now and then.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

const quiet = 15 * time.Second // between two lines about one step on a pipe

// Reporter numbers the steps of one command.
type Reporter struct {
	out    io.Writer
	moving bool
	width  int
	total  int
	next   int
}

// New reports total steps on file.
func New(file *os.File, total int) *Reporter {
	r := &Reporter{out: file, total: total, width: 80}
	if term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		r.moving = true
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 20 {
			r.width = width
		}
	}
	return r
}

// Line prints text on a line of its own.
func (r *Reporter) Line(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// Step is one part of the command, under way.
type Step struct {
	r       *Reporter
	head    string
	started time.Time
	mu      sync.Mutex
	detail  string
	stop    chan struct{}
	stopped sync.WaitGroup
}

// Step begins the next step.
func (r *Reporter) Step(title string) *Step {
	r.next++
	s := &Step{r: r, head: fmt.Sprintf("[%d/%d] %s", r.next, r.total, title), started: time.Now(), stop: make(chan struct{})}
	every := quiet
	if r.moving {
		every = 500 * time.Millisecond
		s.draw()
	}
	s.stopped.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ticker.C:
				s.draw()
			}
		}
	})
	return s
}

// Detail says what the step is at right now.
func (s *Step) Detail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detail = fmt.Sprintf(format, args...)
}

func (s *Step) draw() {
	s.mu.Lock()
	line := s.head + " … " + short(time.Since(s.started))
	if s.detail != "" {
		line += " (" + s.detail + ")"
	}
	s.mu.Unlock()
	if !s.r.moving {
		fmt.Fprintln(s.r.out, line)
		return
	}
	if runes := []rune(line); len(runes) >= s.r.width {
		line = string(runes[:s.r.width-1])
	}
	fmt.Fprint(s.r.out, "\r\x1b[K"+line)
}

// End closes the step; without an error it says how long it took.
func (s *Step) End(err error) {
	close(s.stop)
	s.stopped.Wait()
	outcome := short(time.Since(s.started))
	if err != nil {
		outcome = "failed after " + outcome
	}
	line := s.head + " … " + outcome
	if s.r.moving {
		line = "\r\x1b[K" + line
	}
	fmt.Fprintln(s.r.out, line)
}

func short(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
