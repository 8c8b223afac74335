package eviction

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

// uses are amounts of a pod with one container, in MiB where they are bytes.
type uses struct{ memory, layer, logs, volume, files, processes uint64 }

// pod makes a candidate that asks for memory and disk (MiB) at some priority.
func pod(name string, priority int32, memory, disk string, used *uses) candidate {
	c := candidate{pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			Priority: &priority,
			Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourceEphemeralStorage: resource.MustParse(disk),
			}}}},
		},
	}}
	if used != nil {
		c.used = used.stats(name)
	}
	return c
}

func (u uses) stats(uid string) *stats.PodStats {
	fs := func(mib uint64) *stats.FsStats {
		return &stats.FsStats{UsedBytes: ptr.To(mib << 20), InodesUsed: ptr.To(u.files)}
	}
	memory := &stats.MemoryStats{WorkingSetBytes: ptr.To(u.memory << 20)}
	return &stats.PodStats{
		PodRef: stats.PodReference{Name: uid, Namespace: "ns", UID: uid}, Memory: memory,
		ProcessStats:     &stats.ProcessStats{ProcessCount: &u.processes},
		Containers:       []stats.ContainerStats{{Name: "main", Memory: memory, Rootfs: fs(u.layer), Logs: fs(u.logs)}},
		VolumeStats:      []stats.VolumeStats{{Name: "scratch", FsStats: *fs(u.volume)}},
		EphemeralStorage: fs(u.layer + u.logs + u.volume),
	}
}

func TestRank(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		signal  Signal
		oneDisk bool
		pods    []candidate
		want    []string
	}{
		"above its request before priority": {signal: MemoryAvailable, want: []string{"greedy", "idle"}, pods: []candidate{
			pod("idle", 0, "100Mi", "0", &uses{memory: 50}),
			pod("greedy", 1000, "100Mi", "0", &uses{memory: 101}),
		}},
		"among the greedy by priority": {signal: MemoryAvailable, want: []string{"low", "high"}, pods: []candidate{
			pod("high", 10, "0", "0", &uses{memory: 500}),
			pod("low", 1, "0", "0", &uses{memory: 5}),
		}},
		"then by how far above": {signal: MemoryAvailable, want: []string{"b", "c", "a"}, pods: []candidate{
			pod("a", 0, "900Mi", "0", &uses{memory: 1000}), // 100 above
			pod("b", 0, "0", "0", &uses{memory: 300}),
			pod("c", 0, "100Mi", "0", &uses{memory: 300}),
		}},
		"within their requests by priority, then by use": {signal: MemoryAvailable, want: []string{"low", "fuller", "emptier"}, pods: []candidate{
			pod("emptier", 5, "100Mi", "0", &uses{memory: 10}),
			pod("fuller", 5, "100Mi", "0", &uses{memory: 90}),
			pod("low", 1, "100Mi", "0", &uses{memory: 1}),
		}},
		"the unknown before all": {signal: MemoryAvailable, want: []string{"unknown", "greedy"}, pods: []candidate{
			pod("greedy", 0, "0", "0", &uses{memory: 1000}),
			pod("unknown", 1000, "0", "0", nil),
		}},
		"one disk counts everything": {signal: NodeFsAvailable, oneDisk: true, want: []string{"layer", "logs", "volume"}, pods: []candidate{
			pod("volume", 0, "0", "0", &uses{volume: 10}),
			pod("logs", 0, "0", "0", &uses{logs: 20}),
			pod("layer", 0, "0", "0", &uses{layer: 30}),
		}},
		"the node's own disk has logs and volumes": {signal: NodeFsAvailable, want: []string{"logs", "volume", "layer"}, pods: []candidate{
			pod("layer", 0, "0", "0", &uses{layer: 30}),
			pod("volume", 0, "0", "0", &uses{volume: 10}),
			pod("logs", 0, "0", "0", &uses{logs: 20}),
		}},
		"the images' disk has writable layers": {signal: ImageFsAvailable, want: []string{"layer", "logs", "volume"}, pods: []candidate{
			pod("logs", 0, "0", "0", &uses{logs: 20}),
			pod("volume", 0, "0", "0", &uses{volume: 10}),
			pod("layer", 0, "0", "0", &uses{layer: 3}),
		}},
		"who asked for disk may use it": {signal: NodeFsAvailable, want: []string{"small", "large"}, pods: []candidate{
			pod("large", 0, "0", "100Mi", &uses{logs: 90}),
			pod("small", 100, "0", "0", &uses{logs: 1}),
		}},
		"files": {signal: NodeFsInodesFree, oneDisk: true, want: []string{"many", "few"}, pods: []candidate{
			pod("few", 0, "0", "0", &uses{files: 2, logs: 900}),
			pod("many", 0, "0", "0", &uses{files: 20}),
		}},
		"processes by priority, then by number": {signal: PIDAvailable, want: []string{"low", "many", "few"}, pods: []candidate{
			pod("few", 5, "0", "0", &uses{processes: 1}),
			pod("many", 5, "0", "0", &uses{processes: 9}),
			pod("low", 0, "0", "0", &uses{}),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rank(test.signal, test.oneDisk, test.pods)
			var got []string
			for _, c := range test.pods {
				got = append(got, c.pod.Name)
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	message, annotations := starved(MemoryAvailable, pod("p", 0, "10Mi", "0", &uses{memory: 64}), Reading{Available: 50 << 20}, 100<<20)
	require.Equal(t, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "+
		"Container main was using 64Mi, request is 10Mi, has larger consumption of memory. ", message)
	require.Equal(t, map[string]string{
		"starved_resource": "memory", "offending_containers": "main", "offending_containers_usage": "64Mi",
	}, annotations)
	message, _ = starved(NodeFsAvailable, pod("p", 0, "0", "0", &uses{layer: 3, logs: 1}), Reading{Available: 1 << 30}, 2<<30)
	require.Equal(t, "The node was low on resource: ephemeral-storage. Threshold quantity: 2Gi, available: 1Gi. "+
		"Container main was using 4Mi, request is 0, has larger consumption of ephemeral-storage. ", message)
	message, annotations = starved(PIDAvailable, pod("p", 0, "0", "0", nil), Reading{Available: 7}, 9)
	require.Equal(t, "The node was low on resource: pids. Threshold quantity: 9, available: 7. ", message)
	require.Equal(t, map[string]string{"starved_resource": "pids"}, annotations)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	limit := func(name string, used *uses, container, volume string) candidate {
		c := pod(name, 0, "0", "0", used)
		if container != "" {
			c.pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(container)}
		}
		source := &corev1.EmptyDirVolumeSource{}
		if volume != "" {
			source.SizeLimit = ptr.To(resource.MustParse(volume))
		}
		c.pod.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: source}}}
		return c
	}
	for name, test := range map[string]struct {
		candidate
		elsewhere bool // writable layers on another disk
		limited   bool
		message   string
	}{
		"none":       {candidate: limit("p", &uses{volume: 9000}, "", "")},
		"kept":       {candidate: limit("p", &uses{volume: 9, layer: 1}, "10Mi", "9Mi"), limited: true},
		"volume":     {candidate: limit("p", &uses{volume: 10}, "", "9Mi"), limited: true, message: `Usage of EmptyDir volume "scratch" exceeds the limit "9Mi". `},
		"no limit 0": {candidate: limit("p", &uses{volume: 10}, "", "0"), message: ""},
		"pod": {candidate: limit("p", &uses{volume: 9, layer: 1, logs: 1}, "10Mi", "9Mi"), limited: true,
			message: "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "},
		"unknown": {candidate: limit("p", nil, "1Mi", "1Mi"), limited: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.limited, limited(test.pod))
			require.Equal(t, test.message, exceeded(test.candidate, !test.elsewhere))
		})
	}

	// Two containers: one over its own limit, the pod within the sum.
	two := limit("p", &uses{layer: 6, logs: 1}, "5Mi", "")
	two.pod.Spec.Containers = append(two.pod.Spec.Containers, corev1.Container{Name: "other", Resources: corev1.ResourceRequirements{
		Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("100Mi")},
	}})
	require.Equal(t, `Container main exceeded its local ephemeral storage limit "5Mi". `, exceeded(two, true))
	require.Empty(t, exceeded(two, false), "a layer on another disk does not count")
	two.pod.Spec.InitContainers, two.pod.Spec.Containers = two.pod.Spec.Containers[:1], two.pod.Spec.Containers[1:]
	require.Empty(t, exceeded(two, true), "an init container's is the pod's matter")
	two.pod.Spec.InitContainers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	require.NotEmpty(t, exceeded(two, true), "a sidecar's is its own")

	memory := limit("p", &uses{volume: 10}, "", "9Mi")
	memory.pod.Spec.Volumes[0].EmptyDir.Medium = corev1.StorageMediumMemory
	require.False(t, limited(memory.pod))
	require.Empty(t, exceeded(memory, true), "the kernel keeps that limit")
}
