package pods

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
)

// bucket stores the vendor's claim and volume on a bucket, not bound yet.
func (m *machine) bucket(gateway *s3test.Gateway, name string) {
	m.t.Helper()
	gateway.Bucket(m.t, name, map[string]string{"hello.txt": "hello"})
	_, err := m.client.CoreV1().PersistentVolumes().Create(m.t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "oss-test"},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			ClaimRef:    &corev1.ObjectReference{Namespace: "default", Name: "oss-test", UID: "claim"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "ossplugin.csi.alibabacloud.com", VolumeHandle: "oss-csi-pv",
				VolumeAttributes: map[string]string{
					"akId": s3test.KeyID, "akSecret": s3test.KeySecret, "bucket": name,
					"otherOpts": "-o max_stat_cache_size=0 -o allow_other", "url": "http://" + gateway.Address,
				},
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(m.t, err)
	_, err = m.client.CoreV1().PersistentVolumeClaims("default").Create(m.t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "oss-test", UID: "claim"},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}, metav1.CreateOptions{})
	require.NoError(m.t, err)
}

// bound binds the claim, as the cluster's controller does.
func (m *machine) bound() {
	m.t.Helper()
	claim, err := m.client.CoreV1().PersistentVolumeClaims("default").Get(m.t.Context(), "oss-test", metav1.GetOptions{})
	require.NoError(m.t, err)
	claim.Spec.VolumeName, claim.Status.Phase = "oss-test", corev1.ClaimBound
	_, err = m.client.CoreV1().PersistentVolumeClaims("default").Update(m.t.Context(), claim, metav1.UpdateOptions{})
	require.NoError(m.t, err)
}

func claiming(name string) *corev1.Pod {
	pod := shell(name, obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "oss-volume", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "oss-test"},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "oss-volume", MountPath: "/oss-data/"}}
	return pod
}

// helpers of the machine's pods, by number.
func (m *machine) helpers() []string {
	out, _ := exec.Command("pgrep", "-f", "s3fs .*"+m.root).Output()
	return strings.Fields(string(out))
}

// requireNoKeys are told: in the texts, by any process's arguments or environment, or
// in any file below the agent's own folder that is not the helpers' private one.
func (m *machine) requireNoKeys(texts map[string]string) {
	m.t.Helper()
	private := 0
	require.NoError(m.t, filepath.WalkDir(m.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // renamed since it was listed: it is read under its other name
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "oss-volume" && filepath.Base(filepath.Dir(path)) == "volumes":
			return filepath.SkipDir // the bucket itself
		case e.IsDir() && e.Name() == "private":
			info, err := e.Info()
			require.NoError(m.t, err)
			require.Equal(m.t, os.FileMode(0o700), info.Mode().Perm())
			private++
			return filepath.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		texts[path] = string(raw)
		return err
	}))
	require.NotZero(m.t, private, "the walk has passed the helpers")
	seen := 0
	processes, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(m.t, err)
	for _, process := range processes {
		cmdline, _ := os.ReadFile(filepath.Join(process, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(process, "environ"))
		name, err := os.ReadFile(filepath.Join(process, "comm")) // last: until exec(2) it is the parent's
		if err != nil || strings.TrimSpace(string(name)) == "versitygw" {
			continue // it has ended, or has the keys by right
		}
		texts[string(name)+"cmdline"+process], texts[string(name)+"environ"+process] = string(cmdline), string(environ)
		seen += strings.Count(string(cmdline), "passwd_file="+m.root)
	}
	require.NotZero(m.t, seen, "the helpers' arguments are among what is looked at")
	for where, text := range texts {
		for _, key := range []string{s3test.KeyID, s3test.KeySecret} {
			require.False(m.t, strings.Contains(text, key), "a key is told in %s", where)
		}
	}
}

// A pod waits for its claim, says so, and starts when it is bound. Its helper outlives
// the agent; one that is killed is replaced under the running container; nothing is
// left of it, and nobody is told a key.
func TestPodWithBucket(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gateway := s3test.Start(t)
	m.bucket(gateway, "models")
	m.start()
	pod := claiming("app")
	m.create(pod)
	m.await("app", "waiting", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, `persistentvolumeclaim "oss-test" is not bound yet`)
	})
	require.Contains(t, m.events.String(), `Warning FailedMount MountVolume.SetUp failed for volume "oss-volume" : persistentvolumeclaim "oss-test" is not bound yet`)
	m.bound()
	m.awaitPhase("app", corev1.PodRunning)
	require.Equal(t, "hello", m.sh(pod, "cat /oss-data/hello.txt"))
	m.sh(pod, "echo written > /oss-data/new.txt")
	object, err := gateway.Object("models", "new.txt")
	require.NoError(t, err)
	require.Equal(t, "written\n", object)

	// A second pod on the claim has a helper of its own.
	second := claiming("second")
	m.create(second)
	m.awaitPhase("second", corev1.PodRunning)
	require.Equal(t, "written", m.sh(second, "cat /oss-data/new.txt"))
	before := m.helpers()
	require.Len(t, before, 2)

	m.halt()
	require.Equal(t, "hello", m.sh(pod, "cat /oss-data/hello.txt"), "while there is no agent")
	m.start()
	require.Equal(t, before, m.helpers())
	for _, helper := range before {
		require.NoError(t, exec.Command("kill", "-KILL", helper).Run())
	}
	require.Eventually(t, func() bool {
		return strings.Count(m.events.String(), "Warning VolumeConditionAbnormal Volume oss-volume: its FUSE helper ended and was started again") == 2
	}, patience, wink, "both are mounted again")
	for _, p := range []*corev1.Pod{pod, second} {
		require.Equal(t, "hello", m.sh(p, "cat /oss-data/hello.txt"), "in the container that has run all the time")
		require.Zero(t, m.get(p.Name).Status.ContainerStatuses[0].RestartCount)
	}

	status, err := json.Marshal([]*corev1.Pod{m.get("app"), m.get("second")})
	require.NoError(t, err)
	m.requireNoKeys(map[string]string{"a status": string(status), "an event": m.events.String(), "the runtime's log": m.c.Log()})
	m.end("app")
	m.end("second")
	require.Empty(t, m.helpers())
}

// The agent was killed between mounting and starting the container, and the pod deleted
// meanwhile.
func TestMountOfDeletedPodGoes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gateway := s3test.Start(t)
	m.bucket(gateway, "models")
	m.bound()
	m.start()
	pod := claiming("app")
	pod.Spec.Containers[0].Image = "localhost/test/absent:1"
	pod.Spec.Containers[0].ImagePullPolicy = corev1.PullNever
	m.create(pod)
	mounted := filepath.Join(m.root, "volumes", string(pod.UID), "volumes", "oss-volume", "hello.txt")
	require.Eventually(t, func() bool { _, err := os.Stat(mounted); return err == nil }, patience, wink)
	m.halt()
	require.Len(t, m.helpers(), 1)
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "app", metav1.DeleteOptions{}))
	m.start()
	require.Eventually(t, func() bool {
		uids, err := m.manager.o.Volumes.PodUIDs()
		return err == nil && len(uids) == 0
	}, patience, wink)
	require.Empty(t, m.helpers())
}

// The agent was killed between mounting and starting the container: the next one starts
// it on what is mounted.
func TestMountIsTakenOver(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gateway := s3test.Start(t)
	m.bucket(gateway, "models")
	m.bound()
	m.start()
	pod := claiming("app")
	pod.Spec.Containers[0].Image = "localhost/test/late:1"
	pod.Spec.Containers[0].ImagePullPolicy = corev1.PullNever
	m.create(pod)
	mounted := filepath.Join(m.root, "volumes", string(pod.UID), "volumes", "oss-volume", "hello.txt")
	require.Eventually(t, func() bool { _, err := os.Stat(mounted); return err == nil }, patience, wink)
	m.halt()
	before := m.helpers()
	require.Len(t, before, 1)
	m.c.Load(t, "localhost/test/late:1", nil)
	m.start()
	m.awaitPhase("app", corev1.PodRunning)
	require.Equal(t, "hello", m.sh(pod, "cat /oss-data/hello.txt"))
	require.Equal(t, before, m.helpers())
	m.end("app")
}

// writing writes files of 2 MiB into the bucket, one after the other, and notes of each
// whether it was told that it is written: when fsync and close have returned.
const writing = `trap 'exit 0' TERM
: > /tmp/told
i=0
while :; do
  i=$((i+1))
  busybox dd if=/dev/urandom of=/tmp/file bs=64k count=32 2>/dev/null
  if busybox dd if=/tmp/file of=/oss-data/file-$i bs=64k conv=fsync 2>/dev/null; then
    echo "ok file-$i $(busybox sha256sum < /tmp/file)" >> /tmp/told
  else
    echo "failed file-$i" >> /tmp/told
  fi
done`

// The gateway goes and comes back while a pod writes. What the pod was told is written
// is in the bucket, whole; what is not, it was told too; and it writes on.
func TestNothingToldWrittenIsLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gateway := s3test.Start(t)
	m.bucket(gateway, "models")
	m.bound()
	volume, err := m.client.CoreV1().PersistentVolumes().Get(t.Context(), "oss-test", metav1.GetOptions{})
	require.NoError(t, err)
	// Else a helper tries five times, four seconds apart, before it tells.
	volume.Spec.CSI.VolumeAttributes["otherOpts"] = "-o retries=1 -o max_stat_cache_size=0"
	_, err = m.client.CoreV1().PersistentVolumes().Update(t.Context(), volume, metav1.UpdateOptions{})
	require.NoError(t, err)
	m.start()
	pod := claiming("writer")
	pod.Spec.Containers[0].Command = []string{"sh", "-c", writing}
	m.create(pod)
	m.awaitPhase("writer", corev1.PodRunning)
	awaitMore := func(verdict string, n int) {
		t.Helper()
		count := func() int {
			told, _ := m.run(pod, "cat /tmp/told") // which is not there at first
			return strings.Count(told, verdict+" file-")
		}
		from := count()
		require.Eventually(t, func() bool { return count() >= from+n }, patience, 50*time.Millisecond)
	}
	awaitMore("ok", 2)
	for range 3 {
		gateway.Stop()
		gateway.Run(t)
		awaitMore("ok", 2)
	}
	gateway.Stop()
	awaitMore("failed", 1)
	gateway.Run(t)
	awaitMore("ok", 2)

	told := m.sh(pod, "cat /tmp/told")
	for line := range strings.Lines(told) {
		fields := strings.Fields(line)
		if fields[0] != "ok" {
			continue
		}
		object, err := gateway.Object("models", fields[1])
		require.NoError(t, err)
		digest := sha256.Sum256([]byte(object))
		require.Equal(t, fields[2], hex.EncodeToString(digest[:]), "%s is as it was written", fields[1])
	}
	t.Logf("%d written, %d told that they are not", strings.Count(told, "ok "), strings.Count(told, "failed "))
	require.Zero(t, m.get("writer").Status.ContainerStatuses[0].RestartCount)
	m.end("writer")
}
