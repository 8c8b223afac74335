package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// restore puts the API's store back to when it held this pod.
func (m *machine) restore(pod *corev1.Pod) {
	m.t.Helper()
	m.client.Lock()
	m.stored.last = int(version(pod))
	m.client.Unlock()
	require.NoError(m.t, m.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), pod.DeepCopy(), pod.Namespace))
}

// label writes the pod so often, and waits until the agent has seen it.
func (m *machine) label(name string, times int) {
	m.t.Helper()
	var pod *corev1.Pod
	for range times {
		var err error
		pod, err = m.client.CoreV1().Pods("default").Patch(m.t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
		require.NoError(m.t, err)
	}
	require.Eventually(m.t, func() bool { return m.worker(name).version() == version(pod) }, patience, wink)
}

func (m *machine) worker(name string) *worker {
	m.manager.mu.Lock()
	defer m.manager.mu.Unlock()
	return m.manager.workers[types.UID("uid-"+name)]
}

// The API's store was restored from a backup: what it shows is the truth, although
// newer versions have been seen, and the pod runs on.
func TestARestoredAPIIsBelieved(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	before := m.awaitPhase("web", corev1.PodRunning)
	m.label("web", 50)
	m.restore(before)
	require.Eventually(t, func() bool { return m.worker("web").version() == version(before) }, patience, wink)
	require.Equal(t, before.Status, m.get("web").Status, "the same container runs")
	m.delete("web", 1)
	m.awaitGone("web")
}

// It was restored while the agent was away, which remembers a newer pod.
func TestARestoredAPIIsBelievedByANewAgent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	before := m.awaitPhase("web", corev1.PodRunning)
	m.label("web", 50)
	changed := m.get("web")
	changed.Generation++ // so that it is remembered
	_, err := m.client.CoreV1().Pods("default").Update(t.Context(), changed, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		points, err := m.manager.checkpoints.Load()
		return err == nil && version(points[changed.UID].Pod) > version(before)
	}, patience, wink)
	m.halt()
	m.restore(before)
	m.start()
	m.delete("web", 1)
	m.awaitGone("web")
}

// The store was restored to just before a write of the agent's own: the watch shows
// what it showed before, and tells nothing.
func TestAWriteThatWasLostIsNoticed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("web", obedient))
	shown := m.awaitPhase("web", corev1.PodRunning)
	w := m.worker("web")
	require.Eventually(t, func() bool { return w.version() == version(shown) }, patience, wink)
	lost := shown.DeepCopy()
	lost.ResourceVersion += "0"
	require.True(t, w.take(lost))

	m.manager.compareOne(t.Context(), shown)
	require.Equal(t, version(lost), w.version(), "a watch may lag behind a little")
	m.manager.compareOne(t.Context(), shown)
	require.Equal(t, version(shown), w.version())
}
