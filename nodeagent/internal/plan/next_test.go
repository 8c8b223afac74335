package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/backoff"
	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
	"github.com/ainode/ainode/nodeagent/internal/podtest"
	"github.com/ainode/ainode/nodeagent/internal/probes"
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var testPod, withInit, withSidecar = podtest.Pod, podtest.WithInit, podtest.WithSidecar

// world builds what the runtime holds.
type world struct{ pod *cri.Pod }

func emptyWorld() *world { return &world{&cri.Pod{UID: "u1", SandboxOf: map[string]string{}}} }

func (w *world) sandbox(id string, attempt uint32, ready bool) *world {
	state := runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	if ready {
		state = runtimeapi.PodSandboxState_SANDBOX_READY
	}
	w.pod.Sandboxes = append([]*runtimeapi.PodSandbox{{
		Id: id, State: state, Metadata: &runtimeapi.PodSandboxMetadata{Attempt: attempt},
	}}, w.pod.Sandboxes...)
	return w
}

// container adds a container, newer than those before, to the newest sandbox. It
// ended 30 s before epoch if it did.
func (w *world) container(id, name string, attempt uint32, state runtimeapi.ContainerState, exitCode int32) *world {
	n := len(w.pod.Containers)
	w.pod.Containers = append([]*runtimeapi.ContainerStatus{{
		Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}, State: state, ExitCode: exitCode,
		CreatedAt:  epoch.Add(-time.Hour + time.Duration(n)*time.Second).UnixNano(),
		FinishedAt: epoch.Add(-30 * time.Second).UnixNano(),
	}}, w.pod.Containers...)
	if len(w.pod.Sandboxes) > 0 {
		w.pod.SandboxOf[id] = w.pod.Sandboxes[0].Id
	}
	return w
}

func (w *world) running(name string) *world {
	return w.container(name+"-run", name, 0, runtimeapi.ContainerState_CONTAINER_RUNNING, 0)
}

func (w *world) dead(name string, attempt uint32, exitCode int32) *world {
	return w.container(name+"-dead", name, attempt, runtimeapi.ContainerState_CONTAINER_EXITED, exitCode)
}

func names(starts []Starting) []string {
	var all []string
	for _, s := range starts {
		all = append(all, s.Name)
	}
	return all
}

func killed(kills []Killing) []string {
	var all []string
	for _, k := range kills {
		all = append(all, k.Name)
	}
	return all
}

func TestNext(t *testing.T) {
	t.Parallel()
	const (
		always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	)
	tests := []struct {
		name    string
		pod     *corev1.Pod
		stop    bool
		world   *world
		crashes map[string]backoff.Crash
		probes  map[string]podstatus.Probed
		failed  map[string]probes.Failure

		sandbox bool
		attempt uint32
		start   []string
		kill    []string
		ended   bool
		waiting []string
	}{
		{name: "a new pod", pod: testPod(always, "a", "b"), world: emptyWorld(), sandbox: true, start: []string{"a", "b"}},
		{name: "sandbox there", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, true), start: []string{"a"}},
		{name: "all runs", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, true).running("a")},
		{name: "one of two runs", pod: testPod(always, "a", "b"), world: emptyWorld().sandbox("s", 0, true).running("a"), start: []string{"b"}},
		{name: "first restart is at once", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 1), start: []string{"a"}},
		{name: "back-off after the second end", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 1, 1),
			crashes: map[string]backoff.Crash{"a": {Delay: time.Minute, Restarted: epoch.Add(-time.Minute)}}, waiting: []string{"a"}},
		{name: "back-off is over", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 1, 1),
			crashes: map[string]backoff.Crash{"a": {Delay: 20 * time.Second, Restarted: epoch.Add(-time.Minute)}}, start: []string{"a"}},
		{name: "on failure: success ends it", pod: testPod(onFailure, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 0), ended: true},
		{name: "on failure: failure restarts it", pod: testPod(onFailure, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 3), start: []string{"a"}},
		{name: "never: failure ends it", pod: testPod(never, "a"), world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 3), ended: true},
		{name: "never: no new sandbox for what has ended", pod: testPod(never, "a"), world: emptyWorld().sandbox("s", 0, false).dead("a", 0, 137), ended: true},
		{name: "never: the other still runs", pod: testPod(never, "a", "b"), world: emptyWorld().sandbox("s", 0, true).running("b").dead("a", 0, 0)},
		{name: "sandbox died, containers live", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, false).running("a"), kill: []string{"a"}},
		{name: "sandbox died with its containers", pod: testPod(always, "a"), world: emptyWorld().sandbox("s", 0, false).dead("a", 0, 137),
			sandbox: true, attempt: 1, start: []string{"a"}},
		{name: "deleted and running", pod: testPod(always, "a", "b"), stop: true, world: emptyWorld().sandbox("s", 0, true).running("a").running("b"), kill: []string{"b", "a"}},
		{name: "deleted and dead", pod: testPod(always, "a"), stop: true, world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 0), ended: true},
		{name: "deleted before it began", pod: testPod(always, "a"), stop: true, world: emptyWorld(), ended: true},
		{name: "made but not started", pod: testPod(never, "a"),
			world: emptyWorld().sandbox("s", 0, true).container("c", "a", 0, runtimeapi.ContainerState_CONTAINER_CREATED, 0), start: []string{"a"}},
		{name: "unknown to the runtime", pod: testPod(always, "a"),
			world: emptyWorld().sandbox("s", 0, true).container("c", "a", 0, runtimeapi.ContainerState_CONTAINER_UNKNOWN, 0), kill: []string{"a"}},

		{name: "first init container", pod: withInit(testPod(always, "a"), "i", "j"), world: emptyWorld(), sandbox: true, start: []string{"i"}},
		{name: "init container runs", pod: withInit(testPod(always, "a"), "i", "j"), world: emptyWorld().sandbox("s", 0, true).running("i")},
		{name: "second init container", pod: withInit(testPod(always, "a"), "i", "j"), world: emptyWorld().sandbox("s", 0, true).dead("i", 0, 0), start: []string{"j"}},
		{name: "initialized", pod: withInit(testPod(always, "a"), "i"), world: emptyWorld().sandbox("s", 0, true).dead("i", 0, 0), start: []string{"a"}},
		{name: "init container failed and is restarted", pod: withInit(testPod(always, "a"), "i"), world: emptyWorld().sandbox("s", 0, true).dead("i", 0, 1), start: []string{"i"}},
		{name: "init container failed for good", pod: withInit(testPod(never, "a"), "i"), world: emptyWorld().sandbox("s", 0, true).dead("i", 0, 1), ended: true},
		{name: "a new sandbox initializes anew", pod: withInit(testPod(always, "a"), "i"),
			world: emptyWorld().sandbox("s", 0, false).dead("i", 0, 0).dead("a", 0, 137), sandbox: true, attempt: 1, start: []string{"i"}},

		{name: "sidecar first", pod: withSidecar(testPod(always, "a"), "side"), world: emptyWorld(), sandbox: true, start: []string{"side"}},
		{name: "sidecar not up yet", pod: withSidecar(testPod(always, "a"), "side"), world: emptyWorld().sandbox("s", 0, true).running("side"),
			probes: map[string]podstatus.Probed{"side-run": {}}},
		{name: "sidecar up", pod: withSidecar(testPod(always, "a"), "side"), world: emptyWorld().sandbox("s", 0, true).running("side"), start: []string{"a"}},
		{name: "app containers end before sidecars", pod: withSidecar(testPod(always, "a"), "side"), stop: true,
			world: emptyWorld().sandbox("s", 0, true).running("side").running("a"), kill: []string{"a"}},
		{name: "then the sidecar", pod: withSidecar(testPod(always, "a"), "side"), stop: true,
			world: emptyWorld().sandbox("s", 0, true).running("side").dead("a", 0, 0), kill: []string{"side"}},
		{name: "a sidecar does not keep a pod alive", pod: withSidecar(testPod(never, "a"), "side"),
			world: emptyWorld().sandbox("s", 0, true).running("side").dead("a", 0, 0), kill: []string{"side"}},

		{name: "liveness failed", pod: testPod(always, "a", "b"), world: emptyWorld().sandbox("s", 0, true).running("a").running("b"),
			failed: map[string]probes.Failure{"b-run": {Kind: probes.Liveness}}, kill: []string{"b"}},
		{name: "a sidecar's startup probe failed", pod: withSidecar(testPod(always, "a"), "side"), world: emptyWorld().sandbox("s", 0, true).running("side"),
			probes: map[string]podstatus.Probed{"side-run": {}}, failed: map[string]probes.Failure{"side-run": {Kind: probes.Startup}}, kill: []string{"side"}},
		{name: "on failure: what was killed for its probe is restarted although it ended well", pod: testPod(onFailure, "a"),
			world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 0), failed: map[string]probes.Failure{"a-dead": {}}, start: []string{"a"}},
		{name: "never: what was killed for its probe is not restarted", pod: testPod(never, "a"),
			world: emptyWorld().sandbox("s", 0, true).dead("a", 0, 137), failed: map[string]probes.Failure{"a-dead": {}}, ended: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Next(View{Pod: test.pod, Stop: test.stop, Actual: test.world.pod, Crashes: test.crashes, Probes: test.probes, Failed: test.failed, Now: epoch})
			require.Equal(t, test.sandbox, got.Sandbox, "sandbox")
			require.Equal(t, test.attempt, got.Attempt, "attempt")
			require.Equal(t, test.start, names(got.Start), "start")
			require.Equal(t, test.kill, killed(got.Kill), "kill")
			require.Equal(t, test.ended, got.Ended, "ended")
			for _, name := range test.waiting {
				require.Contains(t, got.Waiting, name)
				require.True(t, got.Again.After(epoch))
			}
			require.Len(t, got.Waiting, len(test.waiting))
		})
	}
}

func TestNextRestartsWhatChanged(t *testing.T) {
	t.Parallel()
	pod := testPod(corev1.RestartPolicyAlways, "a")
	w := emptyWorld().sandbox("s", 0, true).running("a")
	w.pod.Containers[0].Annotations = map[string]string{crispec.AnnotationSpecHash: crispec.SpecHash(&pod.Spec.Containers[0])}
	require.Empty(t, Next(View{Pod: pod, Actual: w.pod, Now: epoch}).Kill)
	w.pod.Containers[0].Annotations[crispec.AnnotationSpecHash] = "another"
	got := Next(View{Pod: pod, Actual: w.pod, Now: epoch})
	require.Equal(t, "Container a definition changed, will be restarted", got.Kill[0].Message)
}

func TestNextWordsFailedProbesAsTheKubelet(t *testing.T) {
	t.Parallel()
	w := emptyWorld().sandbox("s", 0, true).running("a")
	failed := map[string]probes.Failure{"a-run": {Kind: probes.Liveness, Grace: ptr.To[int64](7)}}
	got := Next(View{Pod: testPod(corev1.RestartPolicyAlways, "a"), Actual: w.pod, Failed: failed, Now: epoch}).Kill
	require.Equal(t, []Killing{{ID: "a-run", Name: "a", Message: "Container a failed liveness probe, will be restarted", Grace: ptr.To[int64](7)}}, got)
	got = Next(View{Pod: testPod(corev1.RestartPolicyNever, "a"), Actual: w.pod, Failed: failed, Now: epoch}).Kill
	require.Equal(t, "Container a failed liveness probe", got[0].Message)
}

func TestNextPrunes(t *testing.T) {
	t.Parallel()
	pod := testPod(corev1.RestartPolicyAlways, "a")
	w := emptyWorld().sandbox("old", 0, false).
		container("c0", "a", 0, runtimeapi.ContainerState_CONTAINER_EXITED, 1).
		sandbox("new", 1, true).
		container("c1", "a", 1, runtimeapi.ContainerState_CONTAINER_EXITED, 1).
		container("c2", "a", 2, runtimeapi.ContainerState_CONTAINER_RUNNING, 0)
	got := Next(View{Pod: pod, Actual: w.pod, Now: epoch})
	require.Equal(t, []string{"c0"}, got.PruneContainers, "all but the last dead one")
	require.Equal(t, []string{"old"}, got.PruneSandboxes, "a sandbox that keeps nothing worth keeping")
}

func TestNextWordsBackOffAsTheKubelet(t *testing.T) {
	t.Parallel()
	w := emptyWorld().sandbox("s", 0, true).dead("a", 3, 1)
	got := Next(View{Pod: testPod(corev1.RestartPolicyAlways, "a"), Actual: w.pod, Now: epoch})
	require.Equal(t, podstatus.Waiting{
		Reason:  "CrashLoopBackOff",
		Message: "back-off 40s restarting failed container=a pod=web_default(u1)",
	}, func() podstatus.Waiting {
		w.pod.Containers[0].CreatedAt = epoch.Add(-time.Minute).UnixNano()
		got = Next(View{Pod: testPod(corev1.RestartPolicyAlways, "a"), Actual: w.pod, Now: epoch})
		return got.Waiting["a"]
	}())
	require.Equal(t, epoch.Add(10*time.Second), got.Again.UTC())
}
