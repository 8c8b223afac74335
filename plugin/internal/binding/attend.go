package binding

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// lookInterval is how often a drain looks at the record that it drains for.
const lookInterval = 2 * time.Second

var (
	// errCalledOff: a bind has called the unbinding off.
	errCalledOff = errors.New("called off")
	// errReleased: somebody else has let go of the very binding, another unbind or its
	// end. What is left to be done is the same.
	errReleased = errors.New("released meanwhile")
)

// same fails unless a record is of the binding that l takes the node out of, or of none
// since. A renewal is the same binding.
func (l *Leaving) same(r *v1alpha1.AINode) error {
	was, is := l.record.Spec, r.Spec
	let := is.ClusterConfigName == ""
	what := fmt.Sprintf("was bound to %q meanwhile, in epoch %d", is.ClusterConfigName, is.BindEpoch)
	switch {
	case r.UID != l.record.UID:
		what = "was removed and added again meanwhile"
	case let && is.BindEpoch <= l.epoch, !let && is.ClusterConfigName == was.ClusterConfigName && is.FirstEpoch() == was.FirstEpoch():
		return nil
	case let:
		what = fmt.Sprintf("was bound again and released meanwhile, up to epoch %d", is.BindEpoch)
	}
	return remedy.New("See what has become of it", "kubectl ainode describe "+l.Node,
		"AI node %q %s: what this command was to end is over, and nothing more is done", l.Node, what)
}

// drains fails unless a record still asks for what l does.
func (l *Leaving) drains(r *v1alpha1.AINode) error {
	if err := l.same(r); err != nil {
		return err
	}
	switch {
	case r.Spec.ClusterConfigName == "":
		return errReleased
	case !r.Spec.Draining:
		return remedy.New("Unbind it all the same", l.again(), "the unbinding of AI node %q was %w meanwhile: it stays bound to %q, without the pods that have gone already",
			l.Node, errCalledOff, r.Spec.ClusterConfigName)
	}
	return nil
}

// look reads whether the record still asks for the drain. One that can't be read does not
// say that it does not: the release asks again, and can't be done without an answer.
func (w *Walk) look(ctx context.Context, l *Leaving) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	record, err := w.Hub.AINode(ctx, l.Node)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("AI node %q was removed meanwhile", l.Node)
	case err != nil:
		return nil
	}
	return l.drains(record)
}

// attend looks at the record for as long as its node is drained, and ends the context it
// returns, with the reason as its cause, once that is not to be any more. look is for
// before each eviction: a computer that has slept wakes up in the middle of them, and a
// pod that is evicted by its name may live elsewhere by now. stop is to be called.
func (w *Walk) attend(ctx context.Context, l *Leaving) (attended context.Context, look, stop func()) {
	attended, end := context.WithCancelCause(ctx)
	var looking sync.Mutex
	var last time.Time
	look = func() {
		looking.Lock()
		defer looking.Unlock()
		// By the time of day: the other clock stands still while the computer sleeps.
		if time.Now().Round(0).Sub(last).Abs() < lookInterval {
			return
		}
		if err := w.look(attended, l); err != nil {
			end(err)
		}
		last = time.Now().Round(0)
	}
	go wait.UntilWithContext(attended, func(context.Context) { look() }, lookInterval)
	return attended, look, func() { end(nil) }
}
