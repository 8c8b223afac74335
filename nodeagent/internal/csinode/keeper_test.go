package csinode

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi"
)

const patience = 2 * time.Minute

// registry is what is registered.
type registry struct {
	now     []csi.Info
	changed chan struct{}
}

func (r *registry) Registered() []csi.Info   { return r.now }
func (r *registry) Changed() <-chan struct{} { return r.changed }

// fixture is a keeper, and its node in an API in memory.
type fixture struct {
	*Keeper
	t        *testing.T
	client   *fake.Clientset
	registry *registry
	clock    *clocktesting.FakeClock
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		t: t, registry: &registry{changed: make(chan struct{}, 1)}, clock: clocktesting.NewFakeClock(time.Unix(1e9, 0)),
		client: fake.NewClientset(
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ai-1", UID: "node-1", Labels: map[string]string{"zone": "a"}}},
			&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "share.example.com"}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}},
		),
	}
	f.Keeper = &Keeper{Client: f.client, Drivers: f.registry, Clock: f.clock, Node: f.node, seen: sets.New[string]()}
	return f
}

func (f *fixture) node() *corev1.Node {
	node, err := f.client.CoreV1().Nodes().Get(context.Background(), "ai-1", metav1.GetOptions{})
	require.NoError(f.t, err)
	return node
}

func (f *fixture) told() *storagev1.CSINode {
	f.t.Helper()
	object, err := f.client.StorageV1().CSINodes().Get(f.t.Context(), "ai-1", metav1.GetOptions{})
	require.NoError(f.t, err)
	return object
}

func (f *fixture) writes() int {
	n := 0
	for _, action := range f.client.Actions() {
		if action.GetVerb() != "get" {
			n++
		}
	}
	return n
}

func TestDriversAreTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	require.NoError(t, f.sync(t.Context(), false))
	require.Empty(t, f.told().Spec.Drivers)
	require.Equal(t, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "ai-1", UID: "node-1"}}, f.told().OwnerReferences)

	f.registry.now = []csi.Info{{Name: "share.example.com", NodeID: "m-1", Topology: map[string]string{"rack": "7", "zone": "a"}, MaxVolumes: 1 << 40}}
	require.NoError(t, f.sync(t.Context(), false))
	require.Equal(t, []storagev1.CSINodeDriver{{
		Name: "share.example.com", NodeID: "m-1", TopologyKeys: []string{"rack", "zone"}, Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To[int32](1<<31 - 1)},
	}}, f.told().Spec.Drivers)
	require.JSONEq(t, `{"share.example.com":"m-1"}`, f.node().Annotations[nodeIDs])
	require.Equal(t, "7", f.node().Labels["rack"])
	require.NotContains(t, f.node().Annotations, managedAttach, "it has nothing attached")
	before := f.writes()
	require.NoError(t, f.sync(t.Context(), true))
	require.Equal(t, before, f.writes(), "nothing changed")

	// One that has no CSIDriver has its volumes attached.
	f.registry.now = append(f.registry.now, csi.Info{Name: "disk.example.com", NodeID: "m-2"})
	require.NoError(t, f.sync(t.Context(), false))
	require.Equal(t, "true", f.node().Annotations[managedAttach])
	require.Len(t, f.told().Spec.Drivers, 2)

	f.registry.now = nil
	require.NoError(t, f.sync(t.Context(), false))
	require.Empty(t, f.told().Spec.Drivers)
	require.NotContains(t, f.node().Annotations, nodeIDs)
	require.Equal(t, "7", f.node().Labels["rack"], "labels stay, as on a kubelet")
}

// An agent that was started again drops nobody before it has heard of all.
func TestDriversStayOverARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.registry.now = []csi.Info{{Name: "share.example.com", NodeID: "m-1"}}
	require.NoError(t, f.sync(t.Context(), false))
	f.registry.now, f.seen = nil, sets.New[string]()
	require.NoError(t, f.sync(t.Context(), false))
	require.Len(t, f.told().Spec.Drivers, 1)
	require.NoError(t, f.sync(t.Context(), true))
	require.Empty(t, f.told().Spec.Drivers)
}

func TestCSINodeOfAnEarlierNode(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.client.StorageV1().CSINodes().Create(t.Context(), &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{
		Name: "ai-1", UID: "old", OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: "ai-1", UID: "node-0"}},
	}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "x"}}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, f.sync(t.Context(), false))
	require.EqualValues(t, "node-1", f.told().OwnerReferences[0].UID)
	require.Empty(t, f.told().Spec.Drivers)
}

// A driver that contradicts the Node is told of nowhere, and changes no label.
func TestTopologyThatContradicts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.registry.now = []csi.Info{
		{Name: "disk.example.com", NodeID: "m-2", Topology: map[string]string{"zone": "b", "rack": "9"}},
		{Name: "share.example.com", NodeID: "m-1", Topology: map[string]string{"row": "3"}},
	}
	require.ErrorContains(t, f.sync(t.Context(), false), "says that this machine is at zone=b, but its Node has the label zone=a")
	require.Equal(t, map[string]string{"zone": "a", "row": "3"}, f.node().Labels)
	require.JSONEq(t, `{"share.example.com":"m-1"}`, f.node().Annotations[nodeIDs])
	require.Len(t, f.told().Spec.Drivers, 1)
	require.Equal(t, "share.example.com", f.told().Spec.Drivers[0].Name)
}

// Run tries again what failed, and looks when a driver comes.
func TestRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	failing := make(chan struct{}, 1)
	failing <- struct{}{}
	f.client.PrependReactor("create", "csinodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-failing:
			return true, nil, apierrors.NewServiceUnavailable("away")
		default:
			return false, nil, nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	await := func(n int) {
		require.Eventually(t, func() bool {
			object, err := f.client.StorageV1().CSINodes().Get(context.Background(), "ai-1", metav1.GetOptions{})
			return err == nil && len(object.Spec.Drivers) == n
		}, patience, time.Millisecond)
	}
	require.Eventually(t, f.clock.HasWaiters, patience, time.Millisecond)
	f.clock.Step(retryPeriod)
	await(0)
	f.registry.now = []csi.Info{{Name: "share.example.com", NodeID: "m-1"}}
	f.registry.changed <- struct{}{}
	await(1)
	cancel()
	require.NoError(t, <-done)
}
