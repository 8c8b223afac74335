package listwatch

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// api has one Secret, and a version that a test sets.
type api struct {
	t       *testing.T
	version string
	value   string
	fails   error
	listed  []metav1.ListOptions
	watched []metav1.ListOptions
	watches chan *watch.FakeWatcher
}

func (a *api) List(_ context.Context, o metav1.ListOptions) (*corev1.SecretList, error) {
	a.listed = append(a.listed, o)
	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "it", ResourceVersion: "7"}, StringData: map[string]string{"is": a.value}}
	return &corev1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: a.version}, Items: []corev1.Secret{secret}}, a.fails
}

func (a *api) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	a.watched = append(a.watched, o)
	w := watch.NewFake()
	if a.watches != nil {
		a.watches <- w
	}
	return w, nil
}

// IsWatchListSemanticsUnSupported says that lists are not streamed, as client-go's fake does.
func (a *api) IsWatchListSemanticsUnSupported() bool { return true }

func TestAWatchGoesOnOnlyWhereTheStoreHasWhatItWasAt(t *testing.T) {
	t.Parallel()
	named := fields.OneTermEqualSelector(metav1.ObjectNameField, "it")
	for name, c := range map[string]struct {
		from     metav1.ListOptions
		fails    error
		asks     int
		refused  func(error) bool
		watching int
	}{
		"from nothing":       {from: metav1.ListOptions{}, watching: 1},
		"from anything":      {from: metav1.ListOptions{ResourceVersion: "0"}, watching: 1},
		"from what there is": {from: metav1.ListOptions{ResourceVersion: "1001", SendInitialEvents: ptr.To(true)}, watching: 1},
		"from before":        {from: metav1.ListOptions{ResourceVersion: "999"}, asks: 1, watching: 1},
		"from now":           {from: metav1.ListOptions{ResourceVersion: "1000"}, asks: 1, watching: 1},
		"from what was lost": {from: metav1.ListOptions{ResourceVersion: "1001"}, asks: 1, refused: apierrors.IsResourceExpired},
		"by one digit":       {from: metav1.ListOptions{ResourceVersion: "20000"}, asks: 1, refused: apierrors.IsResourceExpired},
		"the API is away":    {from: metav1.ListOptions{ResourceVersion: "5"}, fails: apierrors.NewServiceUnavailable("away"), asks: 1, refused: apierrors.IsServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &api{t: t, version: "1000", fails: c.fails}
			source := cache.ToListerWatcherWithContext(Of(store, named, store))
			c.from.AllowWatchBookmarks = true
			_, err := source.WatchWithContext(t.Context(), c.from)
			if c.refused == nil {
				require.NoError(t, err)
			} else {
				require.True(t, c.refused(err), "%v", err)
			}
			require.Len(t, store.listed, c.asks)
			for _, o := range store.listed {
				require.Equal(t, metav1.ListOptions{FieldSelector: named.String(), Limit: 1}, o)
			}
			require.Len(t, store.watched, c.watching)
			for _, o := range store.watched {
				c.from.FieldSelector = named.String()
				require.Equal(t, c.from, o)
			}
		})
	}
}

// As it is with an informer: what it has is what the store has again.
func TestAnInformerTakesARestoredStoreForTheTruth(t *testing.T) {
	t.Parallel()
	store := &api{t: t, version: "1000", value: "new", watches: make(chan *watch.FakeWatcher)}
	seen := make(chan string, 1)
	tell := func(o any) { seen <- o.(*corev1.Secret).StringData["is"] }
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: Of(store, fields.Everything(), store), ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, o any) { tell(o) }},
	})
	go informer.RunWithContext(t.Context())
	next := func() string {
		select {
		case value := <-seen:
			return value
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was told")
			return ""
		}
	}
	require.Equal(t, "new", next())
	first := <-store.watches
	store.version, store.value = "900", "old" // nobody asks while it is watched
	first.Stop()
	require.Equal(t, "old", next())
	(<-store.watches).Stop()
}
