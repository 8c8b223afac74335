package nodestatus

import (
	"context"
	"errors"
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var start = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func testFacts() Facts {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("128"), corev1.ResourceMemory: resource.MustParse("1Ti"),
		corev1.ResourcePods: resource.MustParse("110"), contract.GPUResource: resource.MustParse("8"),
	}
	return Facts{
		Name: "ai-1", Epoch: 3, Holder: "product_boot_key",
		Machine: machine.Identity{ID: "m", ProductUUID: "p", BootID: "b", Kernel: "6.1", OSImage: "Some Linux 1", Arch: "amd64", OS: "linux"},
		Address: "10.0.0.7", Port: 10250, Capacity: amounts, Allocatable: amounts,
		GPULabels: map[string]string{"nvidia.com/gpu.count": "8"}, Simulated: true,
		BindLabels:     map[string]string{"topology.kubernetes.io/zone": "a", contract.TypeLabel: "something-else"},
		KubeletVersion: "v1.37.2-ainode.dev", Runtime: "containerd://2.4.2",
	}
}

func TestTheNodeAsRegistered(t *testing.T) {
	t.Parallel()
	got, err := yaml.Marshal(node(testFacts(), status(testFacts(), Health{}, corev1.NodeStatus{}, start)))
	require.NoError(t, err)
	const golden = "testdata/node.yaml"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, got, 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(string(want), string(got)))
}

func TestANodeWhosePodsHaveAddresses(t *testing.T) {
	t.Parallel()
	f := testFacts()
	f.PodCIDR = "10.64.3.0/24"
	n := node(f, status(f, Health{}, corev1.NodeStatus{}, start))
	require.Equal(t, "10.64.3.0/24", n.Spec.PodCIDR)
	require.Equal(t, []string{"10.64.3.0/24"}, n.Spec.PodCIDRs)
	require.Equal(t, corev1.NodeNetworkUnavailable, n.Status.Conditions[0].Type)
	require.Equal(t, corev1.ConditionFalse, n.Status.Conditions[0].Status)
	require.Equal(t, "pods have addresses of 10.64.3.0/24", n.Status.Conditions[0].Message)
}

// network is a runtime that says what its network is like.
type network struct{ ready bool }

func (n network) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: n.ready, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
	}}}, nil
}

func TestTheRuntimesNetworkCountsWherePodsUseIt(t *testing.T) {
	t.Parallel()
	probe := func(ready, own bool) string {
		return Probe(context.Background(), network{ready}, own).NotReady
	}
	require.Empty(t, probe(true, true))
	require.Empty(t, probe(false, false), "pods that share the node's address do without")
	require.Equal(t, "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized", probe(false, true))
}

func TestConditionsKeepTheirTransition(t *testing.T) {
	t.Parallel()
	first := conditions(Facts{}, Health{}, nil, start)
	later := conditions(Facts{}, Health{NotReady: "container runtime does not answer"}, first, start.Add(time.Minute))
	for _, c := range later {
		want := start
		if c.Type == corev1.NodeReady {
			want = start.Add(time.Minute)
			require.Equal(t, corev1.ConditionFalse, c.Status)
		}
		require.True(t, want.Equal(c.LastTransitionTime.Time), c.Type)
		require.True(t, start.Add(time.Minute).Equal(c.LastHeartbeatTime.Time), c.Type)
	}
	a, b := corev1.NodeStatus{Conditions: first}, corev1.NodeStatus{Conditions: conditions(Facts{}, Health{}, first, start.Add(time.Hour))}
	require.True(t, sameBut(a, b), "a heartbeat alone is no change")
	require.False(t, sameBut(a, corev1.NodeStatus{Conditions: later}))
}

// A node that takes no more pods has no room for any, which the scheduler reads, and
// stays Ready for those that are there.
func TestAFullNodeHasNoRoom(t *testing.T) {
	t.Parallel()
	f := testFacts()
	s := status(f, Health{Full: true}, corev1.NodeStatus{}, start)
	room, size := s.Allocatable[corev1.ResourcePods], s.Capacity[corev1.ResourcePods]
	require.Equal(t, "0", room.String())
	require.Equal(t, "110", size.String())
	require.Equal(t, "8", s.Allocatable.Name(contract.GPUResource, resource.DecimalSI).String(), "what those there have is theirs")
	require.Equal(t, corev1.ConditionTrue, s.Conditions[4].Status)
	s = status(f, Health{}, s, start)
	room = s.Allocatable[corev1.ResourcePods]
	require.Equal(t, "110", room.String(), "and it is open again")
}

func TestPressuresAreToldInTheKubeletsWords(t *testing.T) {
	t.Parallel()
	told := map[corev1.NodeConditionType]string{}
	for _, c := range conditions(Facts{}, Health{Pressures: []corev1.NodeConditionType{corev1.NodeDiskPressure}}, nil, start) {
		told[c.Type] = string(c.Status) + " " + c.Reason + ": " + c.Message
	}
	require.Equal(t, "True KubeletHasDiskPressure: kubelet has disk pressure", told[corev1.NodeDiskPressure])
	require.Equal(t, "False KubeletHasSufficientMemory: kubelet has sufficient memory available", told[corev1.NodeMemoryPressure])
	require.Equal(t, "True KubeletReady: kubelet is posting ready status", told[corev1.NodeReady])
}

func registrar(client *fake.Clientset) *Registrar {
	return &Registrar{
		Client: client, Facts: testFacts(), Clock: testclock.NewFakeClock(start),
		Probe: func(context.Context) Health { return Health{} },
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	require.NoError(t, r.Register(ctx))
	n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, []corev1.Taint{contract.Taint()}, n.Spec.Taints)
	require.Empty(t, n.Spec.ProviderID)

	client.ClearActions()
	require.NoError(t, registrar(client).Register(ctx))
	for _, a := range client.Actions() {
		require.NotEqual(t, "create", a.GetVerb())
	}
	client.ClearActions()
	require.NoError(t, r.sync(ctx))
	require.Empty(t, client.Actions(), "nothing changed, nothing is written")
}

func TestAForeignNodeIsNotTouched(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ai-1", Labels: map[string]string{"someone": "else"}}})
	err := registrar(client).Register(ctx)
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, `"ai-1"`)
	for _, a := range client.Actions() {
		require.Equal(t, "get", a.GetVerb())
	}
}

// The binding was ended by force, and another machine has the name: what an open watch
// shows of its Node is believed, with a credential that is dead too.
func TestANodeOfALaterBindingIsAnothers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	require.NoError(t, r.Register(ctx))
	require.True(t, r.Ours())
	mine := r.Node()
	theirs := mine.DeepCopy()
	theirs.Annotations[contract.BindEpochAnnotation] = strconv.FormatInt(r.Facts.Epoch+1, 10)
	_, err := client.CoreV1().Nodes().Update(ctx, theirs, metav1.UpdateOptions{})
	require.NoError(t, err)
	r.saw(theirs)
	require.False(t, r.Ours())
	require.Same(t, mine, r.Node())
	require.ErrorContains(t, r.Register(ctx), "it is of a later binding")
	require.False(t, r.Ours())
	have, err := client.CoreV1().Nodes().Get(ctx, mine.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, theirs.Annotations, have.Annotations)
	r.saw(mine)
	require.True(t, r.Ours())
}

func TestAnAdoptedNodeIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	old := node(testFacts(), corev1.NodeStatus{})
	old.Annotations[contract.BindEpochAnnotation] = "2"
	old.Labels["kept"] = "yes"
	client := fake.NewClientset(old)
	require.NoError(t, registrar(client).Register(ctx))
	n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "3", n.Annotations[contract.BindEpochAnnotation])
	require.Equal(t, "yes", n.Labels["kept"])
	require.Equal(t, "10.0.0.7", n.Status.Addresses[0].Address)
}

func TestTheNodeShowsItsImages(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	var images []corev1.ContainerImage
	r.Images = func() []corev1.ContainerImage { return images }
	require.NoError(t, r.Register(ctx))
	shown := func() []corev1.ContainerImage {
		n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
		require.NoError(t, err)
		return n.Status.Images
	}
	require.Empty(t, shown())
	images = []corev1.ContainerImage{{Names: []string{"a:1"}, SizeBytes: 7}}
	require.NoError(t, r.sync(ctx))
	require.Equal(t, images, shown())
	images = nil // an agent that has just started does not know them
	require.NoError(t, r.sync(ctx))
	require.Len(t, shown(), 1)
	images = []corev1.ContainerImage{}
	require.NoError(t, r.sync(ctx))
	require.Empty(t, shown())
}

// The volumes in use are told at once when they change, and stay told while nobody
// knows of any or they can't be read.
func TestTheNodeTellsWhichVolumesAreInUse(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewClientset()
	r := registrar(client)
	require.NoError(t, r.Register(ctx))
	var inUse []corev1.UniqueVolumeName
	var unread error
	changed := make(chan struct{}, 1)
	r.VolumesInUse, r.VolumesChanged = func() ([]corev1.UniqueVolumeName, error) { return inUse, unread }, changed
	shown := func() []corev1.UniqueVolumeName {
		n, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
		require.NoError(t, err)
		return n.Status.VolumesInUse
	}
	inUse = []corev1.UniqueVolumeName{"kubernetes.io/csi/disk.example.com^vol-1"}
	changed <- struct{}{}
	require.NoError(t, r.await(ctx, nil))
	require.Equal(t, inUse, shown())
	require.Equal(t, inUse, r.Node().Status.VolumesInUse)
	inUse, unread = nil, errors.New("the disk is broken")
	require.NoError(t, r.sync(ctx))
	require.Len(t, shown(), 1)
	unread = nil
	require.NoError(t, r.sync(ctx))
	require.Empty(t, shown())
}
