package images

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Progress is what the runtime tells of a pull; CRI has no word for it.
type Progress interface {
	// Pulled returns how many bytes of the image that is being pulled from the repository
	// are on the machine, and of how many. An error says that it is not known.
	Pulled(ctx context.Context, repository string) (done, total int64, err error)
}

// When those that wait for a pull are told how far it is: each minute at first, then as
// often as client-go lets a source tell of one object for ever (its EventCorrelator:
// 25 at once, then one in five minutes), so that a long pull swallows no other event.
const (
	tellEarly = time.Minute
	tellLate  = 5 * time.Minute
	early     = 5 // times
)

// report tells all that wait for the flight how far it is, until ctx ends.
func (f *flights) report(ctx context.Context, shared *flight, image string, c clock.Clock) {
	begin, pause := c.Now(), tellEarly
	for n := 1; ; n++ {
		if n > early {
			pause = tellLate
		}
		timer := c.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
		if len(f.listeners(shared)) == 0 {
			continue // it has just ended: nothing is asked for nobody
		}
		message := fmt.Sprintf("Still pulling image %q after %v%s", image, c.Since(begin).Truncate(time.Second), f.amount(ctx, image))
		for _, tell := range f.listeners(shared) {
			tell(message)
		}
	}
}

// amount is the part of the message that says how much has come, empty if it is not known.
func (f *flights) amount(ctx context.Context, image string) string {
	repo, err := repository(image)
	if err != nil || f.progress == nil {
		return ""
	}
	done, total, err := f.progress.Pulled(ctx, repo)
	if err != nil || total == 0 {
		klog.FromContext(ctx).V(2).Info("Progress of a pull is not known", "image", image, "cause", err)
		return ""
	}
	const mib = 1 << 20
	return fmt.Sprintf(": %.1f of %.1f MiB", float64(done)/mib, float64(total)/mib)
}

// listeners are those that wait for the flight, none when it has ended.
func (f *flights) listeners(shared *flight) []func(string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-shared.done:
		return nil
	default:
	}
	var all []func(string)
	for _, w := range shared.waiting {
		all = append(all, w.tell)
	}
	return all
}
