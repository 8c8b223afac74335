package pods

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/plan"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// countedImages counts what the image service is asked.
type countedImages struct {
	criapi.ImageManagerService
	asked atomic.Int32
}

func (c *countedImages) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	c.asked.Add(1)
	return c.ImageManagerService.ImageStatus(ctx, image, verbose)
}

// TestRetriesRepeatNothing lets a start fail again and again by one missing object:
// that is asked for each time, and nothing else is done or told again.
func TestRetriesRepeatNothing(t *testing.T) {
	t.Parallel()
	named := corev1.LocalObjectReference{Name: "settings"}
	for name, test := range map[string]struct {
		spoil func(*corev1.PodSpec)
		event string
	}{
		"volume": {event: "Warning FailedMount", spoil: func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named}}}}
			s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/config"}}
		}},
		"environment": {event: "Warning Failed Error: configmap", spoil: func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named}}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.start()
			pod := shell("app", obedient)
			test.spoil(&pod.Spec)
			m.create(pod)
			asked := func() (n int) {
				for _, action := range m.client.Actions() {
					if action.Matches("get", "configmaps") {
						n++
					}
				}
				return n
			}
			require.Eventually(t, func() bool { return asked() >= 4 }, patience, wink, "tried again")
			told := func(event string) (n int) {
				for _, e := range m.events.list() {
					if strings.HasPrefix(e, event) {
						n++
					}
				}
				return n
			}
			require.Equal(t, 1, told("Normal Pulled"))
			require.Equal(t, 1, told(test.event))
			require.LessOrEqual(t, len(m.events.list()), 2, "%v", m.events)
			require.EqualValues(t, 1, m.images.asked.Load(), "the image is looked for once")
			require.LessOrEqual(t, m.patches(), 2, "what has not changed is not written")

			_, err := m.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"key": "value"},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
			m.awaitPhase("app", corev1.PodRunning)
			require.Equal(t, 1, told("Normal Pulled"))
			require.Equal(t, 1, told("Normal Started"))
		})
	}
}

func TestNewIDsAreNoNews(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	w := newWorker(m.manager, "u")
	pod := shell("app", obedient)
	for _, digit := range []string{"a", "b"} {
		message := "failed to start sandbox \"" + strings.Repeat(digit, 64) + "\": no room"
		w.podFailed(&task{pod: pod}, []plan.Starting{{Name: "main"}}, eventFailedSandbox, message)
	}
	require.Len(t, m.events.list(), 1)
	require.Contains(t, w.waiting["main"].Message, strings.Repeat("a", 64), "the status is not written again")
	require.Equal(t, podstatus.ContainerCreating, w.waiting["main"].Reason)
	w.podFailed(&task{pod: pod}, []plan.Starting{{Name: "main"}}, eventFailedSandbox, "another trouble")
	require.Len(t, m.events.list(), 2)
}

func TestMissingImageIsAskedForByItsBackOff(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Containers[0].Image = "127.0.0.1:1/nothing:1"
	created := m.manager.o.Clock.Now()
	m.create(pod)
	m.await("app", "backing off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == podstatus.ImagePullBackOff
	})
	m.manager.mu.Lock()
	w := m.manager.workers[pod.UID]
	m.manager.mu.Unlock()
	m.halt()
	require.Greater(t, w.retries["main"].at.Sub(created), 9*time.Second, "no try before the back-off is over")
	require.True(t, slices.ContainsFunc(m.events.list(), func(e string) bool { return strings.HasPrefix(e, "Normal BackOff") }))
}

func TestFailuresThatMayHaveLeftSomething(t *testing.T) {
	t.Parallel()
	require.True(t, inRuntime(stepFailed(podstatus.RunContainerError, errors.New("x"))))
	require.False(t, inRuntime(stepFailed(podstatus.CreateContainerConfigError, errors.New("x"))))
}
