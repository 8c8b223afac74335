// Package housekeeper clears up on a target after AI nodes that have been given back,
// where the plugin that should do it died or went away. It acts on proof alone: the
// node's own word on its Node, or, on a hub that is the target as well, its record.
package housekeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// headStart is what a plugin has to clear up by itself. Both may do it at the same
// time without harm; but the plugin needs a second, and what it removes stands in the
// audit log under the name of the person who unbound the node.
const headStart = 20 * time.Second

// year is how long the housekeeper waits to see what it watches. Where records or a
// right are missing it does nothing; the program that admits pods does not end for it.
const year = 365 * 24 * time.Hour

// Housekeeper clears up.
type Housekeeper struct {
	client client.Client // reads from the cache
	live   client.Reader
	hub    bool
	uid    string // of this cluster, once it was read
}

// Options of a Housekeeper. The clients are required.
type Options struct {
	// Client deletes, and reads from a cache: Nodes (their metadata) and certificate
	// requests; with Hub, AINodes and ClusterConfigs too.
	Client client.Client
	// Live reads from the API server: what is deleted is judged by nothing older.
	Live client.Reader
	// Hub says that this cluster holds the pool's records as well.
	Hub bool
}

// New makes a Housekeeper.
func New(o Options) (*Housekeeper, error) {
	if o.Client == nil || o.Live == nil {
		return nil, errors.New("make the housekeeper: both clients are required")
	}
	return &Housekeeper{client: o.Client, live: o.Live, hub: o.Hub}, nil
}

// Register runs the housekeeper with the manager, on the leader.
func (h *Housekeeper) Register(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).Named("housekeeper").
		WithOptions(controller.Options{CacheSyncTimeout: year}).
		WatchesMetadata(&corev1.Node{}, after(headStart, func(o client.Object) bool {
			_, ok := identity.ReleasedEpoch(o)
			return ok
		}))
	if h.hub {
		b = b.Watches(&v1alpha1.AINode{}, after(headStart, func(o client.Object) bool {
			record, ok := o.(*v1alpha1.AINode)
			return ok && record.Released() && record.Spec.BindEpoch > 0
		}))
	}
	return b.Complete(h)
}

// after has a node looked at a while after an event that concerns us.
func after(wait time.Duration, concerns func(client.Object) bool) handler.EventHandler {
	look := func(o client.Object, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		if concerns(o) {
			q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKey{Name: o.GetName()}}, wait)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			look(e.Object, q)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			look(e.ObjectNew, q)
		},
	}
}

// Reconcile looks at one node, by name.
func (h *Housekeeper) Reconcile(ctx context.Context, in reconcile.Request) (reconcile.Result, error) {
	epoch, err := h.marked(ctx, in.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	var lists []string
	if h.hub {
		recorded, configs, err := h.recorded(ctx, in.Name)
		if err != nil {
			return reconcile.Result{}, err
		}
		epoch, lists = max(epoch, recorded), configs
	}
	if epoch == 0 {
		return reconcile.Result{}, nil
	}
	removed, again, err := h.clear(ctx, in.Name, epoch)
	if removed > 0 {
		log.FromContext(ctx).Info("Cleared up after an AI node that was given back", "node", in.Name, "epoch", epoch, "objects", removed)
	}
	if err != nil || again {
		return reconcile.Result{}, err
	}
	for _, config := range lists {
		if err := h.unlist(ctx, config, in.Name); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// marked is the epoch that the node itself says it has given back, or 0.
func (h *Housekeeper) marked(ctx context.Context, name string) (int64, error) {
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	if err := h.client.Get(ctx, client.ObjectKey{Name: name}, node); client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("read node %q: %w", name, err)
	}
	epoch, ok := identity.ReleasedEpoch(node)
	if !ok {
		return 0, nil
	}
	return epoch, nil
}
