package objects

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ainode/ainode/nodeagent/internal/listwatch"
)

// watchLife is how long a watch lasts at least before it is made anew, as the
// kubelet has it (pkg/kubelet/util/manager): that, and one small list (see listwatch),
// is all that an object costs which does not change.
const watchLife = 30 * time.Minute

// ErrNotSeen says that nothing has been heard of an object yet.
var ErrNotSeen = errors.New("the API has not told of it yet")

// Follower knows the ConfigMaps and Secrets that running pods have mounted as the
// API has them now: by one watch for each, however many pods mount it, and none for
// one that is immutable. The Node authorizer lets a node watch what its pods name, one
// object at a time. Asking for each every minute would be some forty requests where a
// watch is one.
type Follower struct {
	client kubernetes.Interface

	mu      sync.Mutex
	watched map[Reference]*watched
}

// NewFollower returns a Follower that follows nothing yet.
func NewFollower(client kubernetes.Interface) *Follower {
	return &Follower{client: client, watched: map[Reference]*watched{}}
}

// Kind is that of an object which can be followed.
type Kind int

// The kinds.
const (
	ConfigMap Kind = iota
	Secret
)

// Reference names one object.
type Reference struct {
	Kind            Kind
	Namespace, Name string
}

// watched is one object. Its fields are guarded by the Follower's mu.
type watched struct {
	follower  *Follower
	reference Reference
	// callbacks of those who follow it.
	callbacks map[*int]func()
	stop      context.CancelFunc
	seen      bool
	object    metav1.Object // nil if there is none
}

var _ cache.ReflectorStore = (*watched)(nil)

// Follow calls changed soon after each of the objects is first seen, changes, or is
// deleted, until ctx is done. changed must not block.
func (f *Follower) Follow(ctx context.Context, references []Reference, changed func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	me := new(int)
	told := func() {
		if ctx.Err() == nil { // leaving takes its time
			changed()
		}
	}
	for _, reference := range references {
		w, known := f.watched[reference]
		if !known {
			w = &watched{follower: f, reference: reference, callbacks: map[*int]func(){}}
			f.watched[reference] = w
			w.start()
		}
		w.callbacks[me] = told
		if w.seen {
			told()
		}
	}
	context.AfterFunc(ctx, func() { f.leave(me, references) })
}

func (f *Follower) leave(me *int, references []Reference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, reference := range references {
		w, known := f.watched[reference]
		if !known {
			continue
		}
		delete(w.callbacks, me)
		if len(w.callbacks) == 0 {
			w.stop()
			delete(f.watched, reference)
		}
	}
}

// start begins to watch. It outlives the context of the pod that came first.
func (w *watched) start() {
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	reflector := cache.NewReflectorWithOptions(w.source(), w.example(), w, cache.ReflectorOptions{
		Name: "object " + w.reference.Namespace + "/" + w.reference.Name, MinWatchTimeout: watchLife,
	})
	go reflector.RunWithContext(ctx)
}

func (w *watched) example() runtime.Object {
	if w.reference.Kind == Secret {
		return &corev1.Secret{}
	}
	return &corev1.ConfigMap{}
}

func (w *watched) source() cache.ListerWatcher {
	named := fields.OneTermEqualSelector(metav1.ObjectNameField, w.reference.Name)
	client := w.follower.client
	if w.reference.Kind == Secret {
		return listwatch.Of(client.CoreV1().Secrets(w.reference.Namespace), named, client)
	}
	return listwatch.Of(client.CoreV1().ConfigMaps(w.reference.Namespace), named, client)
}

// Add is called with the object when it is made.
func (w *watched) Add(o any) error { return w.Update(o) }

// Update is called with the object when it has changed.
func (w *watched) Update(o any) error {
	object, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	if object.GetName() == w.reference.Name { // not every test's API knows the selector
		w.set(object)
	}
	return nil
}

// Delete is called when the object has been deleted.
func (w *watched) Delete(o any) error {
	object, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	if object.GetName() == w.reference.Name {
		w.set(nil)
	}
	return nil
}

// Replace is called with what there is when a watch begins.
func (w *watched) Replace(list []any, _ string) error {
	for _, o := range list {
		object, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		if object.GetName() == w.reference.Name {
			w.set(object)
			return nil
		}
	}
	w.set(nil)
	return nil
}

// Resync has nothing to do.
func (w *watched) Resync() error { return nil }

func (w *watched) set(object metav1.Object) {
	w.follower.mu.Lock()
	defer w.follower.mu.Unlock()
	if w.seen && w.object == nil && object == nil {
		return
	}
	if w.object != nil && object != nil && w.object.GetUID() == object.GetUID() && w.object.GetResourceVersion() == object.GetResourceVersion() && object.GetResourceVersion() != "" {
		return // a watch that was made anew tells it again
	}
	w.seen, w.object = true, object
	if immutable(object) {
		w.stop()
	}
	for _, changed := range w.callbacks {
		changed()
	}
}

func immutable(object metav1.Object) bool {
	var is *bool
	switch o := object.(type) {
	case *corev1.ConfigMap:
		is = o.Immutable
	case *corev1.Secret:
		is = o.Immutable
	}
	return is != nil && *is
}

func (f *Follower) last(reference Reference) (metav1.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, known := f.watched[reference]
	if !known || !w.seen {
		return nil, ErrNotSeen
	}
	return w.object, nil
}

// ConfigMap is a ConfigMap that is followed, as last heard of; ErrNotSeen if it has not been.
func (f *Follower) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	object, err := f.last(Reference{ConfigMap, namespace, name})
	if err != nil {
		return nil, err
	}
	if found, ok := object.(*corev1.ConfigMap); ok {
		return found, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
}

// Secret is like ConfigMap.
func (f *Follower) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	object, err := f.last(Reference{Secret, namespace, name})
	if err != nil {
		return nil, err
	}
	if found, ok := object.(*corev1.Secret); ok {
		return found, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}
