package gpu

import (
	"context"
	"errors"
	"time"
)

// ErrSilent is returned for a question that the driver did not answer in time. A
// call into a driver can't be taken back: it goes on, on its own goroutine, and
// until it returns its lane asks nothing else.
var ErrSilent = errors.New("the driver does not answer")

// lane asks the driver one thing at a time, so that a driver which never answers
// holds one goroutine a lane and nobody who asks.
type lane chan struct{}

func newLane() lane { return make(lane, 1) }

// ask returns what question returns, or ErrSilent after patience, or ctx's error at
// its end.
func ask[T any](ctx context.Context, l lane, patience time.Duration, question func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case l <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, ErrSilent
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-l }()
		value, err := question()
		answered <- answer{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, ErrSilent
	}
}
