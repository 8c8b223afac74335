// Package csinode tells the cluster which CSI drivers are registered on this node, as a
// kubelet does (pkg/volume/csi/nodeinfomanager): in the node's CSINode, and on its Node
// by an annotation and by the labels of the drivers' topologies. Scheduler, provisioners
// and attachers go by that.
package csinode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi"
)

const (
	// settle is how long after the start a driver that is not there yet stays told: an
	// agent that was started again has to hear of each of them first.
	settle = time.Minute
	// resync is how often is looked though nothing changed: somebody may have deleted the
	// object.
	resync      = 5 * time.Minute
	retryPeriod = 5 * time.Second
)

// Drivers are those that are registered.
type Drivers interface {
	Registered() []csi.Info
	// Changed has a value when they have changed.
	Changed() <-chan struct{}
}

// Keeper keeps what is told of one node true.
type Keeper struct {
	// Client acts as the node, which may write its own CSINode alone (Node authorizer,
	// NodeRestriction).
	Client kubernetes.Interface
	// Node is the Node as last seen; it has no UID while it has not been.
	Node    func() *corev1.Node
	Drivers Drivers
	Clock   clock.Clock

	seen sets.Set[string] // drivers since the start
}

// Run keeps it true until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	began := k.Clock.Now()
	k.seen = sets.New[string]()
	for retry := retryPeriod; ; {
		err := k.sync(ctx, k.Clock.Since(began) >= settle)
		if ctx.Err() != nil {
			return nil
		}
		wait := resync
		if since := k.Clock.Since(began); since < settle {
			wait = settle - since
		}
		if err == nil {
			retry = retryPeriod
		} else {
			wait, retry = retry, min(2*retry, resync)
			klog.FromContext(ctx).Info("What is told of this node's CSI drivers is not up to date", "again", wait, "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.Drivers.Changed():
		case <-k.Clock.After(wait):
		}
	}
}

// sync writes what differs. A driver that nothing has been heard of since the start goes
// when the start is over.
func (k *Keeper) sync(ctx context.Context, settled bool) error {
	node := k.Node()
	if node.UID == "" {
		return errors.New("the Node is not registered yet")
	}
	all := k.Drivers.Registered()
	for _, d := range all {
		k.seen.Insert(d.Name)
	}
	registered, contradicts := agreeing(node, all)
	gone := func(name string) bool {
		return (settled || k.seen.Has(name)) && !slices.ContainsFunc(registered, func(d csi.Info) bool { return d.Name == name })
	}
	// The Node first, as a kubelet does: who reads the CSINode finds the labels.
	if err := k.tellNode(ctx, node, registered, gone); err != nil {
		return errors.Join(contradicts, err)
	}
	return errors.Join(contradicts, k.tell(ctx, node, registered, gone))
}

// tell writes the CSINode.
func (k *Keeper) tell(ctx context.Context, node *corev1.Node, registered []csi.Info, gone func(string) bool) error {
	api := k.Client.StorageV1().CSINodes()
	have, err := api.Get(ctx, node.Name, metav1.GetOptions{})
	if err == nil && !slices.ContainsFunc(have.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == node.UID }) {
		// Of a Node of the same name that is gone: it would soon be collected.
		if err := api.Delete(ctx, node.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(have.UID))}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the CSINode of an earlier node %q: %w", node.Name, err)
		}
		have, err = nil, apierrors.NewNotFound(storagev1.Resource("csinodes"), node.Name)
	}
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
			Spec:       storagev1.CSINodeSpec{Drivers: drivers(nil, registered, gone)},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create CSINode %q: %w", node.Name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read CSINode %q: %w", node.Name, err)
	}
	want := drivers(have.Spec.Drivers, registered, gone)
	if apiequality.Semantic.DeepEqual(have.Spec.Drivers, want) {
		return nil
	}
	have = have.DeepCopy()
	have.Spec.Drivers = want
	if _, err := api.Update(ctx, have, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update CSINode %q: %w", node.Name, err)
	}
	return nil
}

// drivers are those of a CSINode that are not gone, with those that are registered.
func drivers(have []storagev1.CSINodeDriver, registered []csi.Info, gone func(string) bool) []storagev1.CSINodeDriver {
	want := slices.DeleteFunc(slices.Clone(have), func(d storagev1.CSINodeDriver) bool { return gone(d.Name) })
	if want == nil {
		want = []storagev1.CSINodeDriver{}
	}
	for _, info := range registered {
		one := driver(info)
		if i := slices.IndexFunc(want, func(d storagev1.CSINodeDriver) bool { return d.Name == info.Name }); i >= 0 {
			want[i] = one
		} else {
			want = append(want, one)
		}
	}
	return want
}

func driver(info csi.Info) storagev1.CSINodeDriver {
	d := storagev1.CSINodeDriver{Name: info.Name, NodeID: info.NodeID, TopologyKeys: sets.List(sets.KeySet(info.Topology))}
	if info.MaxVolumes > 0 {
		count := int32(min(info.MaxVolumes, math.MaxInt32))
		d.Allocatable = &storagev1.VolumeNodeResources{Count: ptr.To(count)}
	}
	return d
}
