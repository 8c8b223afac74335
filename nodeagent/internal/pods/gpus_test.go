package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ainode/ainode/api/contract"
)

// asking gives the pod's container that many GPUs.
func asking(pod *corev1.Pod, container string, gpus int64) *corev1.Pod {
	c := findContainer(pod, container)
	list := corev1.ResourceList{contract.GPUResource: *resource.NewQuantity(gpus, resource.DecimalSI)}
	c.Resources = corev1.ResourceRequirements{Limits: list, Requests: list}
	return pod
}

func uid(pod *corev1.Pod, uid types.UID) *corev1.Pod { pod.UID = uid; return pod }

func TestAllocator(t *testing.T) {
	t.Parallel()
	cards := []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
	a := newAllocator()

	got, err := a.assign(uid(asking(testPod("", "x", "y"), "x", 2), "one"), cards)
	require.NoError(t, err)
	require.Equal(t, assignment{"x": {"GPU-0", "GPU-1"}}, got)

	_, err = a.assign(uid(asking(testPod("", "x"), "x", 3), "two"), cards)
	require.EqualError(t, err, "requested: 3, free: 2, cards: 4")
	require.Equal(t, 2, a.inUse(), "all or nothing")

	a.claim("adopted", []string{"GPU-3"})
	got, err = a.assign(uid(asking(testPod("", "x"), "x", 1), "three"), cards)
	require.NoError(t, err)
	require.Equal(t, assignment{"x": {"GPU-2"}}, got)

	a.release("one")
	require.Equal(t, 2, a.inUse())
	got, err = a.assign(uid(testPod("", "x"), "four"), nil)
	require.NoError(t, err)
	require.Empty(t, got.cards(), "a pod without GPUs needs none")
}

func TestSpreadSharesInitContainersCards(t *testing.T) {
	t.Parallel()
	pod := withSidecar(withInit(testPod("", "a", "b"), "init"), "side")
	asking(asking(asking(asking(pod, "a", 1), "b", 2), "init", 2), "side", 1)
	got, needed := spread(pod, []string{"0", "1", "2", "3"})
	require.Equal(t, 4, needed)
	require.Equal(t, assignment{"side": {"0"}, "init": {"1", "2"}, "a": {"1"}, "b": {"2", "3"}}, got)

	asking(pod, "init", 5)
	got, needed = spread(pod, []string{"0", "1", "2", "3"})
	require.Nil(t, got)
	require.Equal(t, 6, needed)
}

func TestAmountsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, amount := range []string{"9000000000000000000", "5E18", "1e30"} {
		for _, name := range []corev1.ResourceName{contract.GPUResource, corev1.ResourceMemory, corev1.ResourceCPU} {
			pod := testPod("", "a", "b")
			for i := range pod.Spec.Containers {
				all := corev1.ResourceList{name: resource.MustParse(amount)}
				pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{Limits: all, Requests: all}
			}
			verdict := admit(pod, testNode(), nil, true, nil)
			require.NotNil(t, verdict, "two containers of %s %s", amount, name)
			require.Equal(t, "OutOf"+string(name), verdict.Reason)
			asked := resource.MustParse(amount)
			asked.Add(resource.MustParse(amount))
			require.Contains(t, verdict.Message, "requested: "+asked.String()+",")
			if name == contract.GPUResource {
				_, err := newAllocator().assign(pod, []string{"GPU-0"})
				require.Error(t, err)
			}
		}
	}
}
