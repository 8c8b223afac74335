package output

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"k8s.io/cli-runtime/pkg/printers"
)

// Progress writes lines for a person who waits, from several goroutines. What
// servers and machines say is escaped: it may hold terminal control sequences.
type Progress struct {
	mu  sync.Mutex
	out io.Writer
}

// NewProgress writes to out.
func NewProgress(out io.Writer) *Progress { return &Progress{out: out} }

// Line writes one line about a subject, mostly a node.
func (p *Progress) Line(subject, format string, args ...any) {
	p.write(fmt.Sprintf("%s  %s", subject, fmt.Sprintf(format, args...)))
}

// Warn writes a warning about a subject.
func (p *Progress) Warn(subject, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if subject != "" {
		text = subject + ": " + text
	}
	p.write("Warning: " + text)
}

func (p *Progress) write(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = printers.WriteEscaped(p.out, strings.TrimRight(line, "\n")) // nobody is left to tell
	fmt.Fprintln(p.out)
}

// Lines is a writer that passes each different line on once.
func (p *Progress) Lines(subject string) io.Writer { return &once{progress: p, subject: subject} }

type once struct {
	progress *Progress
	subject  string

	mu   sync.Mutex
	rest string
	seen map[string]bool
}

func (o *once) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[string]bool{}
	}
	o.rest += string(b)
	for {
		line, rest, found := strings.Cut(o.rest, "\n")
		if !found {
			return len(b), nil
		}
		o.rest = rest
		if !o.seen[line] {
			o.seen[line] = true
			o.progress.Line(o.subject, "%s", line)
		}
	}
}
