// Package listwatch lists and watches objects of an API whose store may be restored from
// a backup while an agent runs.
package listwatch

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Client lists and watches the objects of one kind, as client-go's typed clients do.
type Client[L runtime.Object] interface {
	List(ctx context.Context, o metav1.ListOptions) (L, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// Of is what a reflector needs to follow the objects that selected selects. A watch of
// them is gone on with only where the API's store has come to what it was at (see
// notRestored). clientset is the one that client is of: it may say that lists can't be
// streamed (client-go's fake).
func Of[L runtime.Object](client Client[L], selected fields.Selector, clientset any) cache.ListerWatcher {
	selector := selected.String()
	list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.FieldSelector = selector
		return client.List(ctx, o)
	}
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: list,
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if err := notRestored(ctx, list, o); err != nil {
				return nil, err
			}
			o.FieldSelector = selector
			return client.Watch(ctx, o)
		},
	}, clientset)
}

// notRestored fails if the API's store is older than what a watch wants to go on from: it
// was restored from a backup. Such a watch tells nothing until the store has come to that
// version again, for as many writes as were lost; whoever watches has to list anew. To
// restore a store its API server is stopped, so that it is enough to ask where a watch is
// gone on with: one small request more whenever that is.
func notRestored(ctx context.Context, list cache.ListWithContextFunc, o metav1.ListOptions) error {
	if o.ResourceVersion == "" || o.ResourceVersion == "0" || ptr.Deref(o.SendInitialEvents, false) {
		return nil // it begins with what there is
	}
	answer, err := list(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err // the reflector looks at what kind it is
	}
	now, err := meta.ListAccessor(answer)
	if err != nil {
		return fmt.Errorf("read the version of a list: %w", err)
	}
	older, err := resourceversion.CompareResourceVersion(now.GetResourceVersion(), o.ResourceVersion)
	if err == nil && older < 0 {
		return apierrors.NewResourceExpired(fmt.Sprintf("the API's store is at version %s and was at %s: it was restored from a backup", now.GetResourceVersion(), o.ResourceVersion))
	}
	return nil
}
