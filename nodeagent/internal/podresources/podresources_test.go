package podresources

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/topology"
)

type node struct {
	pods []*corev1.Pod
	has  map[types.UID]map[string][]string
}

func (n node) Pods() []*corev1.Pod                       { return n.pods }
func (n node) Devices(uid types.UID) map[string][]string { return n.has[uid] }

type cards []topology.Device

func (c cards) Devices() []topology.Device { return c }
func (c cards) Device(uuid string) topology.Device {
	for _, d := range c {
		if d.UUID == uuid {
			return d
		}
	}
	return topology.Device{UUID: uuid}
}

func pod(name string, uid types.UID, phase corev1.PodPhase, made int64, containers ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: uid, CreationTimestamp: metav1.Unix(made, 0)},
		Status:     corev1.PodStatus{Phase: phase},
	}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c})
	}
	return p
}

// serve answers at the socket, and returns when somebody can ask.
func serve(t *testing.T, socket string, pods Pods, all Cards) (client podresourcesv1.PodResourcesListerClient, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, socket, pods, all) }()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	client = podresourcesv1.NewPodResourcesListerClient(connection)
	require.Eventually(t, func() bool {
		_, err := client.List(ctx, &podresourcesv1.ListPodResourcesRequest{})
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	return client, func() { cancel(); require.NoError(t, <-ended) }
}

func TestWhoHasWhat(t *testing.T) {
	t.Parallel()
	const gpu, mig = corev1.ResourceName("nvidia.com/gpu"), corev1.ResourceName("nvidia.com/mig-1g.10gb")
	all := cards{
		{UUID: "GPU-a", Resource: gpu, Usable: true}, {UUID: "GPU-b", Resource: gpu}, {UUID: "MIG-a", Resource: mig, Usable: true}, {UUID: "MIG-b", Resource: mig, Usable: true},
	}
	train := pod("train", "u1", corev1.PodRunning, 2, "main", "log")
	train.Spec.InitContainers = []corev1.Container{{Name: "prepare"}, {Name: "side", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
	n := node{
		pods: []*corev1.Pod{train, pod("done", "u2", corev1.PodSucceeded, 1, "main"), pod("train", "u0", corev1.PodRunning, 1, "old"), pod("a", "u3", corev1.PodPending, 1, "main")},
		has: map[types.UID]map[string][]string{"u1": {
			"main": {"GPU-a", "MIG-a"}, "prepare": {"GPU-a"}, "side": {"MIG-b"},
		}},
	}
	socket := filepath.Join(t.TempDir(), "pod-resources", "s.sock")
	client, stop := serve(t, socket, n, all)
	devices := func(c *podresourcesv1.ContainerResources) map[string][]string {
		got := map[string][]string{}
		for _, d := range c.Devices {
			got[d.ResourceName] = d.DeviceIds
		}
		return got
	}
	list, err := client.List(t.Context(), &podresourcesv1.ListPodResourcesRequest{})
	require.NoError(t, err)
	require.Len(t, list.PodResources, 3, "what has ended has nothing")
	require.Equal(t, "a", list.PodResources[0].Name)
	require.Empty(t, list.PodResources[0].Containers[0].Devices)

	got, err := client.Get(t.Context(), &podresourcesv1.GetPodResourcesRequest{PodNamespace: "ml", PodName: "train"})
	require.NoError(t, err)
	its := got.PodResources.Containers
	require.Len(t, its, 3, "of init containers sidecars alone")
	require.Equal(t, []string{"side", "main", "log"}, []string{its[0].Name, its[1].Name, its[2].Name})
	require.Equal(t, map[string][]string{"nvidia.com/mig-1g.10gb": {"MIG-b"}}, devices(its[0]))
	require.Equal(t, map[string][]string{"nvidia.com/gpu": {"GPU-a"}, "nvidia.com/mig-1g.10gb": {"MIG-a"}}, devices(its[1]))
	_, err = client.Get(t.Context(), &podresourcesv1.GetPodResourcesRequest{PodNamespace: "other", PodName: "train"})
	require.Equal(t, codes.NotFound, status.Code(err))

	allocatable, err := client.GetAllocatableResources(t.Context(), &podresourcesv1.AllocatableResourcesRequest{})
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"nvidia.com/gpu": {"GPU-a"}, "nvidia.com/mig-1g.10gb": {"MIG-a", "MIG-b"}},
		devices(&podresourcesv1.ContainerResources{Devices: allocatable.Devices}))

	_, err = listen(t.Context(), socket)
	require.ErrorContains(t, err, "another program answers", "a kubelet's socket is not taken away")
	stop()

	require.NoError(t, os.WriteFile(socket, nil, 0o600)) // as after a crash
	_, stop = serve(t, socket, n, all)
	stop()
}

// Where it can't be served the agent goes on.
func TestASocketThatCanNotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, Serve(ctx, filepath.Join(file, "s.sock"), node{}, cards{}))
}
