package podstatus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func pod(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u", Generation: 3},
		Spec:       corev1.PodSpec{RestartPolicy: policy},
		Status:     corev1.PodStatus{QOSClass: corev1.PodQOSBestEffort},
	}
	for _, name := range names {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: "img"})
	}
	return p
}

func withInit(p *corev1.Pod, name string, policy *corev1.ContainerRestartPolicy) *corev1.Pod {
	p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name, Image: "img", RestartPolicy: policy})
	return p
}

func made(id, name string, attempt uint32, state runtimeapi.ContainerState) *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{
		Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}, State: state,
		Image: &runtimeapi.ImageSpec{Image: "docker.io/img:latest"}, ImageRef: "sha256:1",
		CreatedAt: now.UnixNano(), StartedAt: now.UnixNano(),
	}
}

func running(name string) *runtimeapi.ContainerStatus {
	return made(name+"-run", name, 0, runtimeapi.ContainerState_CONTAINER_RUNNING)
}

func dead(name string, attempt uint32, exitCode int32, reason string) *runtimeapi.ContainerStatus {
	c := made(name+"-dead", name, attempt, runtimeapi.ContainerState_CONTAINER_EXITED)
	c.ExitCode, c.Reason, c.FinishedAt = exitCode, reason, now.Add(time.Minute).UnixNano()
	return c
}

var (
	ready = &runtimeapi.PodSandboxStatus{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	gone  = &runtimeapi.PodSandboxStatus{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}
)

func condition(status corev1.PodStatus, name corev1.PodConditionType) corev1.PodCondition {
	for _, c := range status.Conditions {
		if c.Type == name {
			return c
		}
	}
	return corev1.PodCondition{}
}

func TestPhase(t *testing.T) {
	t.Parallel()
	const (
		always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	)
	sidecar := ptr.To(corev1.ContainerRestartPolicyAlways)
	tests := []struct {
		name       string
		pod        *corev1.Pod
		containers []*runtimeapi.ContainerStatus
		waiting    map[string]Waiting
		ended      bool
		want       corev1.PodPhase
	}{
		{name: "nothing yet", pod: pod(always, "a"), want: corev1.PodPending},
		{name: "runs", pod: pod(always, "a"), containers: []*runtimeapi.ContainerStatus{running("a")}, want: corev1.PodRunning},
		{name: "one of two", pod: pod(always, "a", "b"), containers: []*runtimeapi.ContainerStatus{running("a")}, want: corev1.PodPending},
		{name: "ended, restarts", pod: pod(always, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed")}, want: corev1.PodRunning},
		{name: "crash loop", pod: pod(always, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 2, 1, "Error")},
			waiting: map[string]Waiting{"a": {Reason: CrashLoopBackOff}}, want: corev1.PodRunning},
		{name: "success", pod: pod(onFailure, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed")}, ended: true, want: corev1.PodSucceeded},
		{name: "success, but not over: its probe had failed", pod: pod(onFailure, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed")}, want: corev1.PodPending},
		{name: "failure, restarts", pod: pod(onFailure, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 1, "Error")}, want: corev1.PodRunning},
		{name: "failure", pod: pod(never, "a", "b"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 1, "Error"), dead("b", 0, 0, "Completed")}, ended: true, want: corev1.PodFailed},
		{name: "one still runs", pod: pod(never, "a", "b"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 1, "Error"), running("b")}, want: corev1.PodRunning},
		{name: "ended from outside with success", pod: pod(always, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed")}, ended: true, want: corev1.PodSucceeded},
		{name: "ended from outside", pod: pod(always, "a"), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 137, "Error")}, ended: true, want: corev1.PodFailed},
		{name: "init runs", pod: withInit(pod(always, "a"), "i", nil), containers: []*runtimeapi.ContainerStatus{running("i")}, want: corev1.PodPending},
		{name: "init done", pod: withInit(pod(always, "a"), "i", nil), containers: []*runtimeapi.ContainerStatus{running("a"), dead("i", 0, 0, "Completed")}, want: corev1.PodRunning},
		{name: "init failed", pod: withInit(pod(never, "a"), "i", nil), containers: []*runtimeapi.ContainerStatus{dead("i", 0, 1, "Error")}, ended: true, want: corev1.PodFailed},
		{name: "init tries again", pod: withInit(pod(always, "a"), "i", nil), containers: []*runtimeapi.ContainerStatus{dead("i", 0, 1, "Error")}, want: corev1.PodPending},
		{name: "sidecar and app", pod: withInit(pod(always, "a"), "s", sidecar), containers: []*runtimeapi.ContainerStatus{running("a"), running("s")}, want: corev1.PodRunning},
		{name: "sidecar alone", pod: withInit(pod(always, "a"), "s", sidecar), containers: []*runtimeapi.ContainerStatus{running("s")}, want: corev1.PodPending},
		{name: "sidecar outlives", pod: withInit(pod(never, "a"), "s", sidecar), containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed"), running("s")}, want: corev1.PodRunning},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Compute(Input{
				Pod: test.pod, Sandbox: ready, Containers: test.containers, Waiting: test.waiting, Ended: test.ended,
				Runtime: "containerd", HostIPs: []string{"10.0.0.1"}, HostNetwork: true, Now: now,
			})
			require.Equal(t, test.want, got.Phase)
			require.Len(t, got.ContainerStatuses, len(test.pod.Spec.Containers))
			require.Len(t, got.InitContainerStatuses, len(test.pod.Spec.InitContainers))
		})
	}
}

// Whoever reads a terminal phase gives the pod's cards away.
func TestNoTerminalPhaseOverALivingProcess(t *testing.T) {
	t.Parallel()
	in := Input{
		Pod: pod(corev1.RestartPolicyAlways, "a"), Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")},
		Verdict: &Verdict{Reason: "DeadlineExceeded", Message: "over"}, Runtime: "containerd", Now: now,
	}
	got := Compute(in)
	require.Equal(t, corev1.PodPending, got.Phase)
	require.Empty(t, got.Reason)

	in.Containers, in.Ended = []*runtimeapi.ContainerStatus{dead("a", 0, 137, "Error")}, true
	got = Compute(in)
	require.Equal(t, corev1.PodFailed, got.Phase)
	require.Equal(t, "DeadlineExceeded", got.Reason)
}

func TestRunningPod(t *testing.T) {
	t.Parallel()
	p := pod(corev1.RestartPolicyAlways, "a")
	p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	got := Compute(Input{
		Pod: p, Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")},
		Runtime: "containerd", HostIPs: []string{"10.0.0.1"}, HostNetwork: true, Now: now,
	})
	require.Equal(t, int64(3), got.ObservedGeneration)
	require.Equal(t, "10.0.0.1", got.HostIP)
	require.Equal(t, "10.0.0.1", got.PodIP)
	require.Equal(t, now, got.StartTime.UTC())
	require.Equal(t, corev1.PodQOSBestEffort, got.QOSClass)
	require.Len(t, got.Conditions, 6)
	for _, c := range got.Conditions {
		require.Equal(t, corev1.ConditionTrue, c.Status, c.Type)
	}
	c := got.ContainerStatuses[0]
	require.Equal(t, "containerd://a-run", c.ContainerID)
	require.True(t, c.Ready)
	require.True(t, *c.Started)
	require.NotNil(t, c.State.Running)
	require.Equal(t, "docker.io/img:latest", c.Image)

	t.Run("transition times stay while nothing changes", func(t *testing.T) {
		t.Parallel()
		later := Compute(Input{
			Pod: p, Previous: &got, Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")},
			Runtime: "containerd", HostIPs: []string{"10.0.0.1"}, HostNetwork: true, Now: now.Add(time.Hour),
		})
		require.Equal(t, got, later)
	})
	t.Run("a gate that is not open", func(t *testing.T) {
		t.Parallel()
		closed := p.DeepCopy()
		closed.Status.Conditions = nil
		status := Compute(Input{Pod: closed, Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")}, Now: now})
		require.Equal(t, "ReadinessGatesNotReady", condition(status, corev1.PodReady).Reason)
		require.Equal(t, corev1.ConditionTrue, condition(status, corev1.ContainersReady).Status)
	})
	t.Run("a probe that fails", func(t *testing.T) {
		t.Parallel()
		status := Compute(Input{
			Pod: p, Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")}, Now: now,
			Probes: map[string]Probed{"a-run": {Started: true}},
		})
		require.False(t, status.ContainerStatuses[0].Ready)
		require.Equal(t, "containers with unready status: [a]", condition(status, corev1.PodReady).Message)
	})
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	got := Compute(Input{
		Pod: pod(corev1.RestartPolicyAlways, "a"), Sandbox: ready, Runtime: "containerd", Now: now,
		Containers: []*runtimeapi.ContainerStatus{dead("a", 4, 137, "OOMKilled")},
		Waiting:    map[string]Waiting{"a": {Reason: CrashLoopBackOff, Message: "back-off 40s"}},
		Messages:   map[string]string{"a-dead": "out of memory in step 7"},
	})
	c := got.ContainerStatuses[0]
	require.Equal(t, &corev1.ContainerStateWaiting{Reason: CrashLoopBackOff, Message: "back-off 40s"}, c.State.Waiting)
	require.Equal(t, int32(4), c.RestartCount)
	require.Equal(t, "OOMKilled", c.LastTerminationState.Terminated.Reason)
	require.Equal(t, "out of memory in step 7", c.LastTerminationState.Terminated.Message)
	require.Equal(t, int32(137), c.LastTerminationState.Terminated.ExitCode)
	require.False(t, c.Ready)
}

func TestPendingPod(t *testing.T) {
	t.Parallel()
	got := Compute(Input{
		Pod: pod(corev1.RestartPolicyAlways, "a", "b"), Now: now, HostNetwork: true, HostIPs: []string{"10.0.0.1"},
		Waiting: map[string]Waiting{"a": {Reason: ErrImagePull, Message: "no such image"}},
	})
	require.Equal(t, ErrImagePull, got.ContainerStatuses[0].State.Waiting.Reason)
	require.Equal(t, ContainerCreating, got.ContainerStatuses[1].State.Waiting.Reason)
	require.Empty(t, got.PodIP, "no address before there is a sandbox")
	require.Equal(t, corev1.ConditionFalse, condition(got, corev1.PodReadyToStartContainers).Status)
	require.Equal(t, corev1.ConditionTrue, condition(got, corev1.PodInitialized).Status)
	require.Equal(t, corev1.ConditionTrue, condition(got, corev1.PodScheduled).Status)

	withInits := Compute(Input{Pod: withInit(pod(corev1.RestartPolicyAlways, "a"), "i", nil), Now: now})
	require.Equal(t, PodInitializing, withInits.ContainerStatuses[0].State.Waiting.Reason)
	require.Equal(t, "containers with incomplete status: [i]", condition(withInits, corev1.PodInitialized).Message)
}

func TestRunningInitContainerIsNotDone(t *testing.T) {
	t.Parallel()
	p := withInit(withInit(withInit(pod(corev1.RestartPolicyAlways, "a"), "done", nil), "works", nil), "waits", nil)
	got := Compute(Input{Pod: p, Sandbox: ready, Now: now, Containers: []*runtimeapi.ContainerStatus{dead("done", 0, 0, "Completed"), running("works")}})
	require.Equal(t, "containers with incomplete status: [works waits]", condition(got, corev1.PodInitialized).Message)
	var is []bool
	for _, c := range got.InitContainerStatuses {
		is = append(is, c.Ready)
	}
	require.Equal(t, []bool{true, false, false}, is)
	require.True(t, *got.InitContainerStatuses[1].Started)
}

func TestLostContainer(t *testing.T) {
	t.Parallel()
	p := pod(corev1.RestartPolicyAlways, "a")
	before := Compute(Input{Pod: p, Sandbox: ready, Runtime: "containerd", Containers: []*runtimeapi.ContainerStatus{running("a")}, Now: now})
	after := Compute(Input{Pod: p, Previous: &before, Sandbox: gone, Runtime: "containerd", Now: now})
	c := after.ContainerStatuses[0]
	require.Equal(t, ContainerStatusUnknown, c.LastTerminationState.Terminated.Reason)
	require.Equal(t, int32(1), c.RestartCount)
	require.Equal(t, corev1.PodRunning, after.Phase, "it ran once: never back to Pending")
	again := Compute(Input{Pod: p, Previous: &after, Sandbox: gone, Runtime: "containerd", Now: now})
	require.Equal(t, int32(1), again.ContainerStatuses[0].RestartCount, "counted once")
}

func TestTerminalPhaseStays(t *testing.T) {
	t.Parallel()
	p := pod(corev1.RestartPolicyAlways, "a")
	p.Status.Phase = corev1.PodFailed
	p.Status.Reason = "Evicted"
	got := Compute(Input{Pod: p, Sandbox: ready, Containers: []*runtimeapi.ContainerStatus{running("a")}, Now: now})
	require.Equal(t, corev1.PodFailed, got.Phase)
	require.Equal(t, "Evicted", got.Reason)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	refused := Compute(Input{Pod: pod("", "a"), Now: now, Verdict: &Verdict{Reason: "OutOfcpu", Message: "no cpu", NotAdmitted: true}})
	require.Equal(t, corev1.PodFailed, refused.Phase)
	require.Equal(t, "OutOfcpu", refused.Reason)
	require.NotNil(t, refused.StartTime)

	late := Compute(Input{
		Pod: pod(corev1.RestartPolicyAlways, "a"), Now: now, Sandbox: ready, Ended: true,
		Containers: []*runtimeapi.ContainerStatus{dead("a", 0, 0, "Completed")},
		Verdict:    &Verdict{Reason: "DeadlineExceeded", Message: "too long"},
	})
	require.Equal(t, corev1.PodFailed, late.Phase)
	require.Equal(t, "DeadlineExceeded", late.Reason)
	require.Equal(t, "PodFailed", condition(late, corev1.PodReady).Reason)
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	rule := corev1.Container{
		Name: "a", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyNever),
		RestartPolicyRules: []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}},
	}
	p := pod(corev1.RestartPolicyNever, "a")
	require.True(t, Restarts(&p.Spec, &rule, 42))
	require.False(t, Restarts(&p.Spec, &rule, 1))
	p = withInit(pod(corev1.RestartPolicyAlways, "a"), "i", nil)
	require.False(t, Restarts(&p.Spec, &p.Spec.InitContainers[0], 0), "an init container that succeeded is done")
	require.True(t, Restarts(&p.Spec, &p.Spec.InitContainers[0], 1))
}

func TestQOS(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	p := pod("", "a")
	require.Equal(t, corev1.PodQOSBestEffort, QOS(p))
	p.Spec.Containers[0].Resources.Requests = list("1", "1Gi")
	require.Equal(t, corev1.PodQOSBurstable, QOS(p))
	p.Spec.Containers[0].Resources.Limits = list("1", "1Gi")
	require.Equal(t, corev1.PodQOSGuaranteed, QOS(p))
	p.Spec.Containers[0].Resources.Limits = list("2", "1Gi")
	require.Equal(t, corev1.PodQOSBurstable, QOS(p))
}

func TestOddStatusesOfOthers(t *testing.T) {
	t.Parallel()
	p := pod(corev1.RestartPolicyAlways, "a")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{}, Terminated: &corev1.ContainerStateTerminated{ExitCode: 1},
	}}}
	status := Compute(Input{Pod: p, Runtime: "containerd", Now: now})
	require.Nil(t, status.ContainerStatuses[0].State.Running, "nothing runs of which the runtime knows nothing")
}
