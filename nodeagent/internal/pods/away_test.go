package pods

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

// line is the agent's way to the API, which can be cut; the rest of the cluster goes on
// by the machine's client.
type line struct {
	*fake.Clientset

	refused atomic.Int32
	mu      sync.Mutex
	is      bool // cut
	open    []watch.Interface
	// expired are the resources whose next watch is told that what it knows is too old,
	// as by an API server whose store was compacted meanwhile.
	expired map[string]bool
}

func newLine(m *machine) *line {
	l := &line{Clientset: &fake.Clientset{}}
	l.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if l.refuses() {
			return true, nil, apierrors.NewServiceUnavailable("away")
		}
		object, err := m.client.Invokes(action, nil)
		return true, object, err
	})
	l.AddWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if l.refuses() {
			return true, nil, apierrors.NewServiceUnavailable("away")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if resource := action.GetResource().Resource; l.expired[resource] {
			delete(l.expired, resource)
			return true, nil, apierrors.NewResourceExpired("too old resource version")
		}
		w, err := m.client.InvokesWatch(action)
		if err == nil {
			l.open = append(l.open, w)
		}
		return true, w, err
	})
	return l
}

func (l *line) refuses() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is {
		l.refused.Add(1)
	}
	return l.is
}

// cut ends every watch and refuses every call.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is = true
	for _, w := range l.open {
		w.Stop()
	}
	l.open = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is, l.expired = false, map[string]bool{"pods": true, "configmaps": true, "services": true}
}

// phases are those that statuses of the pod were written with, in order.
func (m *machine) phases(name string) (phases []corev1.PodPhase) {
	for _, action := range m.client.Actions() {
		patch, ok := action.(clienttesting.PatchAction)
		if !ok || patch.GetName() != name || patch.GetSubresource() != "status" {
			continue
		}
		var wrote corev1.Pod
		require.NoError(m.t, json.Unmarshal(patch.GetPatch(), &wrote))
		if phase := wrote.Status.Phase; phase != "" {
			phases = append(phases, phase)
		}
	}
	return phases
}

// An agent that the API is away from looks after its pods as before, and has caught up
// soon after it is back.
func TestTheAPIIsAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	away(m, func(l *line) {
		require.Eventually(t, func() bool { return l.refused.Load() > 10 }, patience, wink, "it goes on asking")
	})
	require.NotContains(t, m.events.String(), "FailedMount", "what is mounted already is no failure")
	m.end("steady")
}

// away takes the API away while pods of all kinds run, for as long as wait takes. The
// pod called steady is left.
func away(m *machine, wait func(*line)) {
	t := m.t
	l := newLine(m)
	m.line = l
	m.writeCards("GPU-0")
	m.addService("default", "kubernetes", "10.96.0.1")
	m.configMap("settings", map[string]string{"a": "one"})
	var tokens atomic.Int32
	m.client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		answer := action.(clienttesting.CreateActionImpl).Object.(*authenticationv1.TokenRequest).DeepCopy()
		answer.Status.Token = fmt.Sprintf("token-%d", tokens.Add(1))
		return true, answer, nil
	})
	m.start()

	steady := asking(shell("steady", obedient), "main", 1)
	steady.Spec.ServiceAccountName = "robot"
	steady.Spec.Volumes = []corev1.Volume{configMapVolume("config", "settings"), {Name: "token", VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](3600), Path: "token"},
		}}},
	}}}
	steady.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "token", MountPath: "/token"}}
	job := shell("job", untilTold)
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	all := []*corev1.Pod{steady, job, shell("crash", untilTold+"; exit 3"), shell("left", obedient), shell("gone", obedient)}
	before := map[string]*corev1.Pod{}
	for _, pod := range all {
		m.create(pod)
		before[pod.Name] = m.awaitPhase(pod.Name, corev1.PodRunning)
	}
	require.Equal(t, "one token-1", m.sh(steady, "echo $(cat /config/a) $(cat /token/token)"))
	id := func(name string) string {
		id, _ := m.manager.ContainerID("default", name, "", "main")
		return "containerd://" + id
	}

	l.cut()
	m.finish(job)
	m.finish(all[2])
	require.Eventually(t, func() bool { return id("crash") != before["crash"].Status.ContainerStatuses[0].ContainerID }, patience, wink, "restarted though nobody can be told")
	// What the cluster does meanwhile.
	m.configMap("settings", map[string]string{"a": "two"})
	m.addService("default", "late", "10.96.0.4")
	m.delete("left", 5)
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	m.create(shell("new", obedient))
	wait(l)
	require.Equal(t, "one", m.sh(steady, "cat /config/a"))
	require.Equal(t, before["job"].Status, m.get("job").Status, "the API has heard nothing")
	for _, name := range []string{"steady", "left", "gone"} {
		require.Equal(t, before[name].Status.ContainerStatuses[0].ContainerID, id(name), "what runs, runs on")
	}

	wrote := m.patches()
	l.mend()
	m.awaitPhase("job", corev1.PodSucceeded)
	m.awaitPhase("new", corev1.PodRunning)
	m.awaitGone("left")
	m.await("crash", "known to have been restarted", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount == 1 && s.State.Running != nil && s.LastTerminationState.Terminated.ExitCode == 3
	})
	require.Eventually(t, func() bool { _, err := m.manager.ContainerID("default", "gone", "", "main"); return err != nil }, patience, wink, "ended: the API does not have it")
	m.awaitSaid(steady, "cat /config/a", "two")
	require.Eventually(t, func() bool {
		services, err := m.manager.o.Services.Of("default")
		return err == nil && len(services) == 2
	}, patience, wink)

	require.Equal(t, before["steady"].Status, m.get("steady").Status)
	require.Equal(t, 1, m.manager.GPUsInUse())
	require.Equal(t, []corev1.PodPhase{corev1.PodSucceeded}, slices.DeleteFunc(m.phases("job"), func(p corev1.PodPhase) bool {
		return p == corev1.PodRunning || p == corev1.PodPending
	}), "told once")
	require.LessOrEqual(t, m.patches()-wrote, 8, "what is over is not told step by step: %v", m.client.Actions())
	require.NotContains(t, m.events.String(), "SandboxChanged")
}
