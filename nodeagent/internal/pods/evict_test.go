package pods

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/eviction"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/usage"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// evicted is a machine with an eviction manager, whose readings are made up.
type evicted struct {
	*machine
	meter *usage.Meter
	// short is the pod that makes the machine short of memory.
	short string
}

func newEvicted(t *testing.T) *evicted {
	m := newMachine(t)
	m.writeCards("card-0")
	m.start()
	e := &evicted{machine: m}
	e.meter = e.newMeter()
	return e
}

func (e *evicted) newMeter() *usage.Meter {
	return usage.New(usage.Options{
		Runtime: e.c.Runtime, Pods: e.manager.Pods, Containers: e.manager.Containers, LogDirectory: e.manager.logDirectory,
		Volumes: e.manager.o.Volumes.(*volumes.Manager).OnDisk, Clock: clock.RealClock{},
	})
}

func (e *evicted) Active() []*corev1.Pod { return e.manager.Active() }

func (e *evicted) Usage(ctx context.Context, measure func(*corev1.Pod) bool) ([]stats.PodStats, error) {
	return e.meter.WithDisk(ctx, measure)
}

func (e *evicted) Evict(uid types.UID, verdict podstatus.Verdict) (over <-chan struct{}, ours, sooner bool) {
	return e.manager.Evict(uid, verdict)
}

// awaitEvent waits until such an event was told.
func (e *evicted) awaitEvent(beginning string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		return slices.ContainsFunc(e.events.list(), func(event string) bool { return strings.HasPrefix(event, beginning) })
	}, patience, wink, "%s of %v", beginning, e.events)
}

// used waits until the pod's figures are as said.
func (e *evicted) used(name string, enough func(stats.PodStats) bool) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		all, _ := e.meter.Pods(e.t.Context())
		return slices.ContainsFunc(all, func(p stats.PodStats) bool { return p.PodRef.Name == name && enough(p) })
	}, patience, 50*wink)
}

// run starts the eviction manager, which looks at once; stop ends it.
func (e *evicted) run() (gauge *eviction.Gauge, stop func()) {
	e.t.Helper()
	thresholds, err := eviction.Parse(eviction.Default)
	require.NoError(e.t, err)
	gauge = eviction.NewGauge(func(context.Context) eviction.Readings {
		free := int64(200 << 20)
		if slices.ContainsFunc(e.manager.Active(), func(p *corev1.Pod) bool { return p.Name == e.short }) {
			free = 50 << 20
		}
		return eviction.Readings{eviction.MemoryAvailable: {Available: free, Capacity: 1 << 30}}
	}, thresholds, clock.RealClock{})
	manager := eviction.New(eviction.Options{
		Gauge: gauge, Pods: e,
		Reclaim: func(ctx context.Context, _ bool) error { return e.manager.RemoveDead(ctx) }, OneDisk: func(context.Context) bool { return true }, Recorder: e.events,
		Node: func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} }, Clock: clock.RealClock{},
	})
	ctx, cancel := context.WithCancel(e.t.Context())
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); require.NoError(e.t, received(e.t, done)) })
	e.t.Cleanup(stop)
	return gauge, stop
}

// modest runs a pod that keeps to its requests.
func (e *evicted) modest() {
	e.t.Helper()
	pod := shell("modest", obedient)
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("500Mi")}
	e.create(pod)
	e.awaitPhase("modest", corev1.PodRunning)
	e.used("modest", func(p stats.PodStats) bool { return p.Memory != nil && p.Memory.WorkingSetBytes != nil })
}

// greedy runs one that asks for no memory and takes some. It is deaf to TERM, with an hour
// of grace: the second that eviction gives ends it.
func (e *evicted) greedy(pod *corev1.Pod) {
	e.t.Helper()
	c := &pod.Spec.Containers[0]
	c.Command[2] = "trap '' TERM; busybox dd if=/dev/zero of=/scratch/file bs=1M count=48; while :; do sleep 1; done"
	pod.Spec.Priority = ptr.To[int32](1000)
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3600)
	c.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory},
	}}}
	e.create(pod)
	e.awaitPhase(pod.Name, corev1.PodRunning)
	e.used(pod.Name, func(p stats.PodStats) bool {
		return p.Memory != nil && p.Memory.WorkingSetBytes != nil && *p.Memory.WorkingSetBytes > 48<<20
	})
}

func TestEvictionForMemory(t *testing.T) {
	e := newEvicted(t)
	e.modest()
	e.greedy(asking(shell("greedy", ""), "main", 1))
	require.Equal(t, 1, e.manager.GPUsInUse())

	e.short = "greedy"
	gauge, stop := e.run()
	pod := e.awaitPhase("greedy", corev1.PodFailed)
	require.Equal(t, "Evicted", pod.Status.Reason)
	require.Contains(t, pod.Status.Message, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container main was using ")
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, "TerminationByKubelet", pod.Status.Conditions[i].Reason)
	require.Equal(t, pod.Status.Message, pod.Status.Conditions[i].Message)
	require.EqualValues(t, 137, pod.Status.ContainerStatuses[0].State.Terminated.ExitCode)
	require.Zero(t, e.manager.GPUsInUse(), "who reads that it has failed may have its card")
	e.awaitEvent("Warning Evicted The node was low on resource: memory.")
	require.Equal(t, corev1.PodRunning, e.get("modest").Status.Phase)
	require.Equal(t, []corev1.NodeConditionType{corev1.NodeMemoryPressure}, gauge.Conditions(t.Context()))

	// A new agent leaves it as it is.
	stop()
	e.halt()
	e.start()
	e.awaitPhase("modest", corev1.PodRunning)
	require.Equal(t, pod.Status, e.get("greedy").Status)
}

// A pod that ends already, in its own time, is what makes the machine short: it ends at
// once, for the reason that it had, and no other in its place.
func TestEvictionHastensAPodThatEndsAlready(t *testing.T) {
	e := newEvicted(t)
	e.modest()
	evicts := func(name, reason string) {
		t.Helper()
		require.Equal(t, corev1.PodRunning, e.get(name).Status.Phase)
		e.short = name
		_, stop := e.run()
		pod := e.awaitPhase(name, corev1.PodFailed)
		stop()
		require.Equal(t, reason, pod.Status.Reason)
		require.EqualValues(t, 137, pod.Status.ContainerStatuses[0].State.Terminated.ExitCode)
		require.Equal(t, corev1.PodRunning, e.get("modest").Status.Phase)
	}

	e.greedy(shell("overdue", ""))
	overdue := e.get("overdue")
	overdue.Spec.ActiveDeadlineSeconds = ptr.To[int64](1)
	_, err := e.client.CoreV1().Pods(overdue.Namespace).Update(t.Context(), overdue, metav1.UpdateOptions{})
	require.NoError(t, err)
	e.awaitEvent("Normal DeadlineExceeded ")
	evicts("overdue", "DeadlineExceeded")

	e.greedy(shell("told", ""))
	e.manager.End("uid-told", podstatus.Verdict{Reason: "BindingEnded", Message: "For a test.", Grace: ptr.To(time.Hour)})
	evicts("told", "BindingEnded")

	require.NotContains(t, e.events.String(), "Warning Evicted")
}

func TestEvictionForAFullVolume(t *testing.T) {
	e := newEvicted(t)
	pod := shell("hoarder", "busybox dd if=/dev/zero of=/scratch/file bs=1M count=3; "+obedient)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("2Mi"))},
	}}}
	e.create(pod)
	e.awaitPhase("hoarder", corev1.PodRunning)
	require.Eventually(t, func() bool {
		total := uint64(0)
		fresh := e.newMeter() // each look walks anew
		all, _ := fresh.WithDisk(t.Context(), func(*corev1.Pod) bool { return true })
		for _, p := range all {
			for _, v := range p.VolumeStats {
				total += *v.UsedBytes
			}
		}
		return total >= 3<<20
	}, patience, 50*wink)
	e.run()
	ended := e.awaitPhase("hoarder", corev1.PodFailed)
	require.Equal(t, "Evicted", ended.Status.Reason)
	require.Equal(t, `Usage of EmptyDir volume "scratch" exceeds the limit "2Mi". `, ended.Status.Message)

	e.awaitEvent("Warning Evicted " + ended.Status.Message)
	e.awaitVolumes()

	// Its containers are what can be had back when the disk is full.
	require.EventuallyWithT(t, func(c *assert.CollectT) { // the agent hears later than the API that its end is told
		require.NoError(c, e.manager.RemoveDead(t.Context()))
		left, err := e.c.Runtime.ListContainers(t.Context(), nil)
		require.NoError(c, err)
		require.Empty(c, left)
	}, patience, wink)
	require.Equal(t, ended.Status, e.get("hoarder").Status)
}

func TestAPodIsNotLetInUnderPressure(t *testing.T) {
	m := newMachine(t)
	m.admit = func(*corev1.Pod) (string, string) { return "Evicted", "The node had condition: [DiskPressure]. " }
	m.start()
	m.create(shell("late", obedient))
	pod := m.awaitPhase("late", corev1.PodFailed)
	require.Equal(t, "Evicted", pod.Status.Reason)
	require.Equal(t, "Pod was rejected: The node had condition: [DiskPressure]. ", pod.Status.Message)
}
