package nodestatus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/apimachinery/lease"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/nodeagent/internal/listwatch"
)

const (
	// checkPeriod is how often the machine is looked at, keepalive how often the
	// status is written though nothing changed, both the kubelet's.
	checkPeriod = 10 * time.Second
	keepalive   = 5 * time.Minute
	retryPeriod = 5 * time.Second
	// The kubelet's Lease: 40 s, renewed at a quarter of it.
	leaseSeconds = 40
	leaseRenewal = 10 * time.Second
)

// ErrForeign is returned for a Node of our name that no agent registered.
var ErrForeign = errors.New("a Node of this name exists that is not an AI node; nothing of it was touched")

// Registrar keeps one Node object true.
type Registrar struct {
	// Client acts as the node.
	Client kubernetes.Interface
	// Heartbeat renews the Lease: a client of its own, so that it waits for nobody's
	// turn. Default Client.
	Heartbeat kubernetes.Interface
	Facts     Facts
	// Probe looks at the machine; it may take a few seconds.
	Probe func(context.Context) Health
	// Images are those on the machine, as a Node's status shows them; nil while they
	// are not known. May be nil.
	Images func() []corev1.ContainerImage
	// VolumesInUse are those that no controller may detach; nil where nobody knows of any.
	VolumesInUse func() ([]corev1.UniqueVolumeName, error)
	// VolumesChanged is Changed for news of them. May be nil.
	VolumesChanged <-chan struct{}
	// GPUsChanged is Changed for news of GPUs. May be nil.
	GPUsChanged <-chan struct{}
	// Changed has a value when the machine is to be looked at at once. May be nil.
	Changed <-chan struct{}
	// Rebooted is called once it is written that the machine has booted since the Node's
	// status was written last. May be nil.
	Rebooted func()
	Clock    clock.Clock

	current atomic.Pointer[corev1.Node]
	lost    atomic.Bool // see Ours
	wrote   time.Time
	// gone is since when the machine lacks a kind of slices that stands on the Node.
	gone map[corev1.ResourceName]time.Time
}

// Node is the Node as last seen, or as it is to be registered while it has not been
// seen yet. Do not change it.
func (r *Registrar) Node() *corev1.Node {
	if n := r.current.Load(); n != nil {
		return n
	}
	return node(r.Facts, status(r.Facts, Health{}, corev1.NodeStatus{}, r.Clock.Now()))
}

// Ours reports whether the Node is, as far as is known, this machine's: not once it was
// deleted, or is of a later binding, until it is registered anew. Watches that were open go
// on for a while with a credential that is dead, and then show another machine's Node and
// pods.
func (r *Registrar) Ours() bool { return !r.lost.Load() }

// Register creates the Node, or adopts one of an earlier life of this AI node.
func (r *Registrar) Register(ctx context.Context) error {
	nodes := r.Client.CoreV1().Nodes()
	have, err := nodes.Get(ctx, r.Facts.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		now := r.Clock.Now()
		have, err = nodes.Create(ctx, node(r.Facts, r.status(r.Probe(ctx), corev1.NodeStatus{}, now)), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("register node %q: %w", r.Facts.Name, err)
		}
		r.wrote = now
		r.keep(have)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node %q: %w", r.Facts.Name, err)
	}
	if foreign(have) {
		return fmt.Errorf("register node %q: %w (delete it or choose another name)", r.Facts.Name, ErrForeign)
	}
	if epoch, _ := identity.Epoch(have); epoch > r.Facts.Epoch {
		r.lost.Store(true)
		return fmt.Errorf("register node %q: it is of a later binding (epoch %d, this machine's is %d)", r.Facts.Name, epoch, r.Facts.Epoch)
	}
	if have, err = r.adopt(ctx, have); err != nil {
		return err
	}
	r.keep(have)
	return r.sync(ctx)
}

func (r *Registrar) keep(node *corev1.Node) {
	r.current.Store(node)
	r.lost.Store(false)
}

// adopt brings labels and annotations up to date; taints stay as they are, a node
// may not change its own.
func (r *Registrar) adopt(ctx context.Context, have *corev1.Node) (*corev1.Node, error) {
	type meta struct {
		Labels      map[string]string `json:"labels,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	change := meta{Labels: missing(have.Labels, labels(r.Facts)), Annotations: missing(have.Annotations, annotations(r.Facts))}
	if len(change.Labels)+len(change.Annotations) == 0 {
		return have, nil
	}
	patch, err := json.Marshal(map[string]meta{"metadata": change})
	if err != nil {
		return nil, fmt.Errorf("adopt node %q: %w", r.Facts.Name, err)
	}
	have, err = r.Client.CoreV1().Nodes().Patch(ctx, r.Facts.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("adopt node %q: %w", r.Facts.Name, err)
	}
	return have, nil
}

// missing is what of want have lacks or has otherwise.
func missing(have, want map[string]string) map[string]string {
	out := maps.Clone(want)
	maps.DeleteFunc(out, func(k, v string) bool { return have[k] == v })
	return out
}

// Run keeps the Node and its Lease true until ctx ends; if Register has not
// succeeded yet it tries that first, for as long as it takes. ErrForeign ends it.
func (r *Registrar) Run(ctx context.Context) error {
	for r.current.Load() == nil {
		err := r.Register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrForeign) {
			return err
		}
		klog.FromContext(ctx).Error(err, "Node not registered, trying again", "after", retryPeriod)
		timer := r.Clock.NewTimer(retryPeriod)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
	gone := make(chan struct{}, 1)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: listwatch.Of(r.Client.CoreV1().Nodes(),
			fields.OneTermEqualSelector(metav1.ObjectNameField, r.Facts.Name), r.Client),
		ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { r.saw(o) },
			UpdateFunc: func(_, o any) { r.saw(o) },
			DeleteFunc: func(any) {
				r.lost.Store(true)
				select {
				case gone <- struct{}{}:
				default:
				}
			},
		},
	})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{}, 2)
	for _, run := range []func(context.Context){informer.RunWithContext, r.leases().Run} {
		go func() { run(ctx); ended <- struct{}{} }()
	}
	defer func() { cancel(); <-ended; <-ended }()

	for {
		err := r.await(ctx, gone)
		if errors.Is(err, ErrForeign) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "Node status not written")
		}
	}
}

// await waits for the next reason to look at the Node, and does so.
func (r *Registrar) await(ctx context.Context, gone <-chan struct{}) error {
	timer := r.Clock.NewTimer(checkPeriod)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-gone:
		// Deleted by somebody while the record says bound: the record is the truth.
		klog.FromContext(ctx).Info("The Node was deleted, registering it again", "node", r.Facts.Name)
		return r.Register(ctx)
	case <-r.Changed:
	case <-r.GPUsChanged:
	case <-r.VolumesChanged:
	case <-timer.C():
	}
	return r.sync(ctx)
}

// leases renews the node's Lease.
func (r *Registrar) leases() lease.Controller {
	client := r.Heartbeat
	if client == nil {
		client = r.Client
	}
	return lease.NewController(r.Clock, client, r.Facts.Name, leaseSeconds, nil, leaseRenewal,
		r.Facts.Name, corev1.NamespaceNodeLease, r.own)
}

func (r *Registrar) saw(object any) {
	n, ok := object.(*corev1.Node)
	if !ok {
		return
	}
	// Somebody else's Node of our name is none that we look after.
	if epoch, ours := identity.Epoch(n); !ours || epoch > r.Facts.Epoch {
		r.lost.Store(true)
		return
	}
	r.keep(n)
}

// status makes the wanted status of what was found on the machine.
func (r *Registrar) status(health Health, have corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	want := status(r.Facts, health, have, now)
	if health.GPUs != nil {
		r.keepGone(&want, have.Capacity, now)
	}
	want.Images, want.VolumesInUse = have.Images, have.VolumesInUse
	if r.VolumesInUse != nil {
		// Where they can't be read, those that were told stay.
		if inUse, err := r.VolumesInUse(); err == nil {
			want.VolumesInUse = inUse
		} else {
			klog.Background().Error(err, "The volumes in use are not known")
		}
	}
	if r.Images != nil {
		if images := r.Images(); images != nil {
			want.Images = images
		}
	}
	return want
}

// sync looks at the machine and writes the status if it changed or is due.
func (r *Registrar) sync(ctx context.Context) error {
	have, now := r.current.Load(), r.Clock.Now()
	health := r.Probe(ctx)
	if err := r.relabel(ctx, have, health.GPUs); err != nil {
		return err
	}
	have = r.current.Load()
	want := r.status(health, have.Status, now)
	if sameBut(have.Status, want) && now.Sub(r.wrote) < keepalive {
		return nil
	}
	changed := have.DeepCopy()
	changed.Status = merged(have.Status, want)
	written, _, err := nodeutil.PatchNodeStatus(r.Client.CoreV1(), types.NodeName(r.Facts.Name), have, changed)
	if apierrors.IsNotFound(err) {
		return r.Register(ctx)
	}
	if err != nil {
		return fmt.Errorf("write the status of node %q: %w", r.Facts.Name, err)
	}
	r.wrote = now
	r.current.Store(written)
	if boot := have.Status.NodeInfo.BootID; boot != "" && boot != want.NodeInfo.BootID && r.Rebooted != nil {
		r.Rebooted()
	}
	return nil
}

// relabel writes the labels that describe the GPUs, where they changed.
func (r *Registrar) relabel(ctx context.Context, have *corev1.Node, gpus *GPUs) error {
	if gpus == nil {
		return nil
	}
	change := gpus.relabel(have.Labels)
	if len(change) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": change}})
	if err != nil {
		return fmt.Errorf("label node %q: %w", r.Facts.Name, err)
	}
	written, err := r.Client.CoreV1().Nodes().Patch(ctx, r.Facts.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return r.Register(ctx)
	}
	if err != nil {
		return fmt.Errorf("label node %q: %w", r.Facts.Name, err)
	}
	r.current.Store(written)
	return nil
}

// own makes the Node the owner of its Lease, as the kubelet does, so that they go
// together.
func (r *Registrar) own(l *coordinationv1.Lease) error {
	if n := r.current.Load(); n != nil && len(l.OwnerReferences) == 0 {
		l.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID,
		}}
	}
	return nil
}
