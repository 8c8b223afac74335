package pods

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// training is a machine with one card and a pod that has it and a disk, whose driver
// answers NodeUnpublishVolume to nobody until it is released.
func training(t *testing.T) (m *machine, d *csitest.Driver, release func()) {
	t.Helper()
	m = newMachine(t)
	m.writeCards("GPU-0")
	d = m.disk(nil)
	d.Serve(t)
	m.start()
	m.create(asking(withDisk("train"), "main", 1))
	m.awaitPhase("train", corev1.PodRunning)
	return m, d, d.Hold(csitest.Unpublish)
}

// awaitVolumes waits until a pod has volumes on the machine, or none has.
func (m *machine) awaitVolumes(uids ...types.UID) {
	m.t.Helper()
	require.EventuallyWithT(m.t, func(c *assert.CollectT) {
		have, err := m.manager.o.Volumes.PodUIDs()
		require.NoError(c, err)
		require.ElementsMatch(c, uids, have)
	}, patience, wink)
}

// deafTo has the API refuse to hear the pod's status, as one that is away, for as long as
// deaf is true; refused counts that.
func (m *machine) deafTo(name string) (deaf *atomic.Bool, refused *atomic.Int32) {
	deaf, refused = &atomic.Bool{}, &atomic.Int32{}
	deaf.Store(true)
	m.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if patch := action.(clienttesting.PatchAction); deaf.Load() && patch.GetName() == name && patch.GetSubresource() == "status" {
			refused.Add(1)
			return unavailable(action)
		}
		return false, nil, nil
	})
	return deaf, refused
}

// cardUser says which pod's container has the card.
func (m *machine) cardUser() string {
	pod, _, _ := m.manager.Owner("GPU-0")
	return pod.Name
}

func TestAnEndWaitsForNoDriver(t *testing.T) {
	t.Parallel()
	m, d, release := training(t)
	m.delete("train", 5)
	m.awaitEnded("train")
	require.Zero(t, m.manager.GPUsInUse(), "who reads that it has ended may have its card")
	next := asking(shell("next", obedient), "main", 1)
	m.create(next)
	m.awaitPhase("next", corev1.PodRunning)
	require.Equal(t, "GPU-0", m.sh(next, "echo $CARD_0"))
	require.NotNil(t, m.get("train"), "its object goes when its volumes have gone")
	m.awaitVolumes("uid-train")
	_, err := m.manager.LogPath("default", "train", "", "main", false)
	require.NoError(t, err, "its logs can be read until then")

	d.Stop() // a call that hangs is cut, and now there is none to call
	require.Eventually(t, func() bool { return strings.Contains(m.events.String(), "Warning FailedUnmount") }, patience, wink)
	require.NotNil(t, m.get("train"))
	release()
	d.Serve(t)
	m.awaitGone("train")
	m.nothingLeft()
	require.Equal(t, "next", m.cardUser())
}

// The API does not know the end yet, the agent is killed, and the card is another's.
func TestAgentKilledBetweenAnEndAndItsVolumes(t *testing.T) {
	t.Parallel()
	m, _, release := training(t)
	deaf, _ := m.deafTo("train")
	m.manager.End("uid-train", podstatus.Verdict{Reason: "Evicted", Message: "For a test."})
	require.Eventually(t, func() bool { return m.manager.GPUsInUse() == 0 }, patience, wink)
	m.create(asking(shell("next", obedient), "main", 1))
	next := m.awaitPhase("next", corev1.PodRunning)
	before := m.get("train")
	require.Equal(t, corev1.PodRunning, before.Status.Phase, "for all that the API knows")

	m.halt()
	m.start()
	deaf.Store(false)
	train := m.awaitPhase("train", corev1.PodFailed)
	require.Equal(t, "Evicted", train.Status.Reason)
	require.Equal(t, "For a test.", train.Status.Message)
	require.Equal(t, before.Status.ContainerStatuses[0].ContainerID, train.Status.ContainerStatuses[0].ContainerID)
	require.Zero(t, train.Status.ContainerStatuses[0].RestartCount, "it was not started again")
	require.Equal(t, "next", m.cardUser())
	require.Equal(t, 1, m.manager.GPUsInUse())
	m.create(asking(shell("third", obedient), "main", 1))
	require.Equal(t, "OutOfnvidia.com/gpu", m.awaitPhase("third", corev1.PodFailed).Status.Reason)
	require.Equal(t, next.Status.ContainerStatuses, m.get("next").Status.ContainerStatuses)
	m.awaitVolumes("uid-train")

	// Killed once more, and the object is forced away meanwhile.
	m.halt()
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "train", metav1.DeleteOptions{}))
	m.start()
	require.Equal(t, "next", m.cardUser())
	release()
	m.nothingLeft()
	require.Eventually(t, func() bool { return m.worker("train") == nil }, patience, wink)
	require.Equal(t, "next", m.cardUser())
	left, err := m.manager.checkpoints.Load()
	require.NoError(t, err)
	require.NotContains(t, left, types.UID("uid-train"))
}

// The same where the volumes go at once: the agent knows by what the pod has ended for as
// long as the API does not.
func TestAgentKilledBeforeTheAPIKnowsTheEnd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.writeCards("GPU-0")
	m.start()
	m.create(asking(shell("train", obedient), "main", 1))
	m.awaitPhase("train", corev1.PodRunning)
	deaf, refused := m.deafTo("train")
	received(t, m.manager.End("uid-train", podstatus.Verdict{Reason: "Evicted", Message: "For a test."}))
	require.Zero(t, m.manager.GPUsInUse())
	m.create(asking(shell("next", obedient), "main", 1))
	m.awaitPhase("next", corev1.PodRunning)
	require.Eventually(t, func() bool { return refused.Load() > 2 }, patience, wink)

	m.halt()
	m.start()
	require.Equal(t, "next", m.cardUser())
	deaf.Store(false)
	train := m.awaitPhase("train", corev1.PodFailed)
	require.Equal(t, "Evicted", train.Status.Reason)
	require.Zero(t, train.Status.ContainerStatuses[0].RestartCount, "it was not started again")
	require.Eventually(t, func() bool {
		left, err := m.manager.checkpoints.Load()
		_, there := left["uid-train"]
		return err == nil && !there
	}, patience, wink)
}

// Who waits for a Job's pod reads its exit code from the object: that goes when it says so,
// also where the agent was killed in between.
func TestAnObjectGoesWhenItTellsTheEnd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.create(shell("job", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
	m.awaitPhase("job", corev1.PodRunning)
	m.awaitOutput("job", "ready")
	deaf, refused := m.deafTo("job")
	last := make(chan *corev1.Pod, 1)
	m.client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		pod, err := m.client.Tracker().Get(corev1.SchemeGroupVersion.WithResource("pods"), "default", "job")
		if err == nil {
			last <- pod.(*corev1.Pod)
		}
		return false, nil, nil
	})
	m.delete("job", 30)
	for range 2 {
		before := refused.Load()
		require.Eventually(t, func() bool { return refused.Load() > before }, patience, wink)
		require.Empty(t, last)
		m.halt()
		m.start()
	}
	deaf.Store(false)
	pod := received(t, last)
	require.Equal(t, corev1.PodFailed, pod.Status.Phase)
	require.Equal(t, int32(7), pod.Status.ContainerStatuses[0].State.Terminated.ExitCode)
	m.awaitGone("job")
}

// As a StatefulSet's pod that is forced away: its successor has its name and its disk.
func TestSuccessorComesWhileVolumesWait(t *testing.T) {
	t.Parallel()
	m, d, release := training(t)
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "train", metav1.DeleteOptions{}))
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Unpublish)) > 0 }, patience, wink)
	again := asking(withDisk("train"), "main", 1)
	again.UID = "uid-again"
	m.create(again)
	require.Eventually(t, func() bool { return m.manager.GPUsInUse() == 1 }, patience, wink)
	require.NotContains(t, m.manager.Devices("uid-train"), "main")
	w, err := m.manager.lookup("default", "train", "")
	require.NoError(t, err)
	require.Equal(t, again.UID, w.uid, "the name is the new one's")
	release()
	m.awaitPhase("train", corev1.PodRunning)
	require.Equal(t, "hello", m.sh(again, "cat /data/hello.txt"))
	m.awaitVolumes("uid-again")
	m.end("train")
	m.nothingLeft()
}

// Who is on the machine by himself may be in a pod's volume.
func TestAProcessOfTheMachineUsesAVolume(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	m.create(pod)
	m.awaitPhase("app", corev1.PodRunning)
	paths, err := filepath.Glob(filepath.Join(m.root, "volumes", "uid-app", "volumes", "*"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	visitor := exec.CommandContext(t.Context(), "sleep", "3600")
	visitor.Dir = paths[0]
	require.NoError(t, visitor.Start())
	m.delete("app", 5)
	m.awaitEnded("app")
	require.Eventually(t, func() bool { return strings.Contains(m.events.String(), "Warning FailedUnmount") }, patience, wink)
	require.NotNil(t, m.get("app"))
	require.NoError(t, visitor.Process.Kill())
	_ = visitor.Wait()
	m.awaitGone("app")
	m.awaitVolumes()
}

// A binding ends though the kernel keeps an unmount waiting, and says what is in the way.
func TestBindingEndsBehindAnUnmount(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	asked, let := make(chan string, 10), make(chan struct{})
	m.unmounting = func(path string) { asked <- path; <-let }
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	m.create(pod)
	m.awaitPhase("app", corev1.PodRunning)
	m.delete("app", 5)
	require.Contains(t, received(t, asked), "uid-app")
	m.haltPods()
	m.manager.volumesWithin = 100 * time.Millisecond
	err := m.manager.StopAll(t.Context(), time.Second)
	require.ErrorIs(t, err, ErrVolumesLeft)
	require.ErrorContains(t, err, `pod "uid-app"`)
	sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	close(let)
	m.manager.volumesWithin = volumesWithin
	require.NoError(t, m.manager.StopAll(t.Context(), time.Second))
	m.awaitVolumes()
}

// A binding ends though a driver hangs; what is left goes under the next one.
func TestStopAllWaitsForNoDriver(t *testing.T) {
	t.Parallel()
	m, d, release := training(t)
	m.haltPods()
	for n := range 2 {
		// Its time is over when it waits for the driver, however long that took.
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- m.manager.StopAll(ctx, time.Second) }()
		require.Eventually(t, func() bool { return len(d.Calls(csitest.Unpublish)) > n }, patience, wink)
		cancel()
		err := received(t, stopped)
		require.ErrorIs(t, err, ErrVolumesLeft)
		require.ErrorContains(t, err, `pod "uid-train"`)
		require.ErrorContains(t, err, diskDriver)
	}
	sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	require.Zero(t, m.manager.GPUsInUse())
	left, err := m.manager.checkpoints.Load()
	require.NoError(t, err)
	require.Empty(t, left)

	m.stopDrivers()
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "train", metav1.DeleteOptions{}))
	m.epoch = 2
	m.start()
	m.create(asking(shell("next", obedient), "main", 1))
	m.awaitPhase("next", corev1.PodRunning)
	release()
	m.nothingLeft()
	require.Eventually(t, func() bool { return m.worker("train") == nil }, patience, wink)
}
