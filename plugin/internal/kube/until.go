package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// Object is what Until can wait for.
type Object interface {
	comparable
	metav1.Object
}

// Source reads and watches one object.
type Source[T Object] struct {
	Name  string
	Get   func(context.Context) (T, error)
	Watch func(context.Context) (watch.Interface, error)
}

// Until returns the object as soon as done says so. done is called with nil while
// there is no such object. An error of done ends the waiting; so does ctx, whose
// error is then returned together with the last state seen.
func Until[T Object](ctx context.Context, s Source[T], done func(T) (bool, error)) (T, error) {
	var last T
	pause := 100 * time.Millisecond
	for {
		// The watch is opened before the reading: no change can fall between.
		ok, err := s.once(ctx, &last, done)
		switch {
		case ok:
			return last, nil
		case ctx.Err() != nil:
			return last, ctx.Err()
		case err != nil && !isPassing(err):
			return last, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return last, ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (s Source[T]) once(ctx context.Context, last *T, done func(T) (bool, error)) (bool, error) {
	var none T
	events, err := s.Watch(ctx)
	if err != nil {
		return false, err
	}
	defer events.Stop()
	object, err := s.Get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		object = none
	case err != nil:
		return false, err
	}
	*last = object
	if ok, err := done(object); ok || err != nil {
		return ok, err
	}
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case event, open := <-events.ResultChan():
			if !open || event.Type == watch.Error {
				return false, nil // a watch ends after a while: open the next
			}
			object, ok := event.Object.(T)
			if !ok || object.GetName() != s.Name {
				continue
			}
			if event.Type == watch.Deleted {
				object = none
			}
			*last = object
			if ok, err := done(object); ok || err != nil {
				return ok, err
			}
		}
	}
}

// isPassing tells errors that pass by themselves from those that never will.
func isPassing(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
}

// WatchedAINode waits for a record.
func (c *Cluster) WatchedAINode(name string) Source[*v1alpha1.AINode] {
	return Source[*v1alpha1.AINode]{
		Name: name,
		Get:  func(ctx context.Context) (*v1alpha1.AINode, error) { return c.AINode(ctx, name) },
		Watch: func(ctx context.Context) (watch.Interface, error) {
			w, err := c.Records.Watch(ctx, &v1alpha1.AINodeList{}, client.MatchingFields{metav1.ObjectNameField: name})
			if err != nil {
				return nil, fmt.Errorf("watch AI node %q: %w", name, err)
			}
			return w, nil
		},
	}
}

// WatchedNode waits for a Node.
func WatchedNode(core kubernetes.Interface, name string) Source[*corev1.Node] {
	return Source[*corev1.Node]{
		Name: name,
		Get: func(ctx context.Context) (*corev1.Node, error) {
			return core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		},
		Watch: func(ctx context.Context) (watch.Interface, error) {
			w, err := core.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{
				FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
			})
			if err != nil {
				return nil, fmt.Errorf("watch node %q: %w", name, err)
			}
			return w, nil
		},
	}
}
