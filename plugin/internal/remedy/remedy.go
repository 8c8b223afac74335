// Package remedy ties an error to what a person can do about it, so that the one
// place that prints errors can end each with the command to type next.
package remedy

import (
	"errors"
	"fmt"
)

// Error is an error and its way out.
type Error struct {
	// Err says what is wrong and why.
	Err error
	// Say introduces Command ("Unbind it first"), without a colon.
	Say string
	// Command is what to type next.
	Command string
}

// New makes an Error whose text is format with args.
func New(say, command, format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf(format, args...), Say: say, Command: command}
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Line is the sentence that follows the error's own.
func (e *Error) Line() string { return e.Say + ":  " + e.Command }

// Lines are the ways out of err, the innermost first, each once.
func Lines(err error) []string {
	var lines []string
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		if inner := errors.Unwrap(err); inner != nil {
			walk(inner)
		}
		//nolint:errorlint // each level is looked at by itself
		if r, ok := err.(*Error); ok {
			for _, have := range lines {
				if have == r.Line() {
					return
				}
			}
			lines = append(lines, r.Line())
		}
	}
	walk(err)
	return lines
}
