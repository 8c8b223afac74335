package pods

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

const diskDriver = "disk.example.com"

// disk stores a claim that is bound to a volume of a CSI driver, and makes the driver,
// which does not serve yet.
func (m *machine) disk(change func(*corev1.PersistentVolume)) *csitest.Driver {
	m.t.Helper()
	d := csitest.New(m.t, m.kubeletDir(), diskDriver)
	d.Volume(m.t, "vol-1", map[string]string{"hello.txt": "hello", "llm/config.json": "{}"})
	ctx := m.t.Context()
	_, err := m.client.StorageV1().CSIDrivers().Create(ctx, &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: diskDriver}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)},
	}, metav1.CreateOptions{})
	require.NoError(m.t, err)
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-1"},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			ClaimRef:    &corev1.ObjectReference{Namespace: "default", Name: "disk", UID: "claim"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: diskDriver, VolumeHandle: "vol-1", FSType: "ext4",
			}},
		},
	}
	if change != nil {
		change(volume)
	}
	_, err = m.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	require.NoError(m.t, err)
	_, err = m.client.CoreV1().PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "disk", UID: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-1"},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}, metav1.CreateOptions{})
	require.NoError(m.t, err)
	return d
}

func withDisk(name string, mounts ...corev1.VolumeMount) *corev1.Pod {
	pod := shell(name, obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"},
	}}}
	if len(mounts) == 0 {
		mounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	pod.Spec.Containers[0].VolumeMounts = mounts
	return pod
}

// awaitMessage waits until the pod says why it does not start.
func (m *machine) awaitMessage(name, message string) {
	m.t.Helper()
	m.await(name, "waiting: "+message, func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, message)
	})
}

// nothingLeft waits until no volume of a driver is on the machine.
func (m *machine) nothingLeft() {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		uids, err := m.manager.o.Volumes.PodUIDs()
		staged, globErr := filepath.Glob(filepath.Join(m.kubeletDir(), "plugins", "kubernetes.io", "csi", "*"))
		return errors.Join(err, globErr) == nil && len(uids) == 0 && len(staged) == 0
	}, patience, wink)
	require.Empty(m.t, csitest.Below(m.kubeletDir()))
}

func TestPodsShareADisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.disk(nil)
	d.Can = append(d.Can, csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS)
	d.Serve(t)
	m.start()
	one := withDisk("one", corev1.VolumeMount{Name: "data", MountPath: "/data"}, corev1.VolumeMount{Name: "data", MountPath: "/llm", SubPath: "llm"},
		corev1.VolumeMount{Name: "data", MountPath: "/made", SubPath: "made/here"})
	one.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](2000), RunAsUser: ptr.To[int64](1000)}
	m.create(one)
	m.awaitPhase("one", corev1.PodRunning)
	require.Equal(t, "hello", m.sh(one, "cat /data/hello.txt"), "by its group")
	require.Equal(t, "{}", m.sh(one, "cat /llm/config.json"))
	m.sh(one, "echo new > /made/new.txt")
	require.Equal(t, "2000", m.sh(one, "busybox stat -c %g /data/made/here/new.txt"))

	two := withDisk("two")
	two.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	m.create(two)
	m.awaitPhase("two", corev1.PodRunning)
	require.Equal(t, "new", m.sh(two, "cat /data/made/here/new.txt"))
	require.Equal(t, "no", m.sh(two, "touch /data/x 2>/dev/null || echo no"))
	require.True(t, d.Calls(csitest.Publish)[1].Published.Readonly)
	require.Len(t, d.Calls(csitest.Stage), 1)
	told := m.manager.o.Volumes.(*volumes.Manager)
	uids := []types.UID{m.get("one").UID, m.get("two").UID}
	require.Eventually(t, func() bool { return len(told.Figures(uids[0])) == 1 && len(told.Figures(uids[1])) == 1 }, patience, wink, "how full it is")

	// Neither the agent's end nor the driver's harms a container that runs, and one that
	// ends is started again without the driver.
	m.halt()
	d.Stop()
	require.Equal(t, "hello", m.sh(one, "cat /data/hello.txt"))
	_, _ = m.run(two, "kill 1") // which may be killed with what it ends
	m.start()
	m.await("two", "started again", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	require.Equal(t, "hello", m.sh(two, "cat /data/hello.txt"))

	// A pod waits for the driver to come back before it is gone: it may have data.
	m.delete("one", 0)
	require.Eventually(t, func() bool {
		return strings.Contains(m.events.String(), "Warning FailedUnmount") && strings.Contains(m.events.String(), "not found in the list of registered CSI drivers")
	}, patience, wink)
	require.NotNil(t, m.get("one"))
	d.Serve(t)
	m.awaitGone("one")
	require.Empty(t, d.Calls(csitest.Unstage), "the other has it")
	m.end("two")
	m.nothingLeft()
	require.Len(t, d.Calls(csitest.Unstage), 1)
	content, err := os.ReadFile(filepath.Join(d.Data, "vol-1", "made", "here", "new.txt"))
	require.NoError(t, err)
	require.Equal(t, "new\n", string(content))
}

// A pod waits for its driver and for the right key, says so without telling it, and
// starts by itself. One whose driver hangs holds up no other.
func TestPodWaitsForItsDriver(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.disk(func(v *corev1.PersistentVolume) {
		v.Spec.CSI.NodeStageSecretRef = &corev1.SecretReference{Namespace: "default", Name: "keys"}
	})
	d.Secret = "the-right-key"
	keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "keys"}, Data: map[string][]byte{"key": []byte("another-key")}}
	_, err := m.client.CoreV1().Secrets("default").Create(t.Context(), keys, metav1.CreateOptions{})
	require.NoError(t, err)
	m.start()
	m.create(withDisk("one"))
	m.awaitMessage("one", "driver name disk.example.com not found in the list of registered CSI drivers (none is registered on this machine)")
	require.Contains(t, m.events.String(), `Warning FailedMount MountVolume.SetUp failed for volume "data" : persistentvolume "pv-1": driver name`)
	d.Serve(t)
	m.awaitMessage("one", "NodeStageVolume: Unauthenticated: the backend refuses key")
	require.Contains(t, m.events.String(), `Warning FailedMount MountVolume.MountDevice failed for volume "data" : persistentvolume "pv-1": CSI driver`)
	for _, key := range []string{"another-key", "the-right-key"} {
		require.NotContains(t, m.events.String(), key)
	}

	release := d.Hold(csitest.Stage)
	staged := len(d.Calls(csitest.Stage))
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Stage)) > staged }, patience, wink)
	m.create(shell("other", obedient))
	m.awaitPhase("other", corev1.PodRunning)
	m.end("other")
	keys.Data["key"] = []byte("the-right-key")
	_, err = m.client.CoreV1().Secrets("default").Update(t.Context(), keys, metav1.UpdateOptions{})
	require.NoError(t, err)
	release()
	m.awaitPhase("one", corev1.PodRunning)
	m.end("one")
	m.nothingLeft()
}

// The agent is killed between staging and publishing; the pod goes on, or was deleted
// meanwhile.
func TestAgentKilledBetweenStageAndPublish(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{false, true} {
		m := newMachine(t)
		d := m.disk(nil)
		d.Serve(t)
		release := d.Hold(csitest.Publish)
		m.start()
		pod := withDisk("one")
		m.create(pod)
		require.Eventually(t, func() bool { return len(d.Calls(csitest.Publish)) == 1 }, patience, wink)
		m.halt()
		release()
		if deleted {
			require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "one", metav1.DeleteOptions{}))
		}
		m.start()
		if !deleted {
			m.awaitPhase("one", corev1.PodRunning)
			require.Equal(t, "hello", m.sh(pod, "cat /data/hello.txt"))
			require.Len(t, d.Calls(csitest.Stage), 1)
			m.end("one")
		}
		m.nothingLeft()
		require.NotEmpty(t, d.Calls(csitest.Unpublish))
		require.Len(t, d.Calls(csitest.Unstage), 1)
		m.halt()
	}
}

// A binding that ends takes away what its pods had, and asks no API.
func TestDiskGoesWithTheBinding(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.disk(nil)
	d.Serve(t)
	m.start()
	m.create(withDisk("one"))
	m.awaitPhase("one", corev1.PodRunning)
	m.haltPods()
	m.client.PrependReactor("*", "*", unavailable)
	require.NoError(t, m.manager.StopAll(t.Context(), time.Second))
	m.nothingLeft()
	require.Len(t, d.Calls(csitest.Unstage), 1)
}

// A driver that is gone holds up no machine that is given back; what it has mounted goes
// when it is there again.
func TestBindingEndsWithoutTheDriver(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := m.disk(nil)
	d.Serve(t)
	m.start()
	m.create(withDisk("one"))
	m.awaitPhase("one", corev1.PodRunning)
	d.Fail(csitest.Unpublish, status.Error(codes.Internal, "the backend is away"))
	m.haltPods()
	m.client.PrependReactor("*", "*", unavailable)
	require.NoError(t, m.manager.StopAll(t.Context(), time.Second))
	require.NotEmpty(t, csitest.Below(m.kubeletDir()), "it is mounted still")
	uids, err := m.manager.o.Volumes.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids)
	d.Fail(csitest.Unpublish, nil)
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Unstage)) == 1 && len(csitest.Below(m.kubeletDir())) == 0 }, patience, wink)
	m.nothingLeft()
}
