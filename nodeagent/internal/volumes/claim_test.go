package volumes

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
)

const patience = 2 * time.Minute

func (o *stored) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.claims[name]; found != nil && o.down == nil {
		return found.DeepCopy(), nil
	}
	return nil, o.missing("persistentvolumeclaims", name)
}

func (o *stored) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.volumes[name]; found != nil && o.down == nil {
		return found.DeepCopy(), nil
	}
	return nil, o.missing("persistentvolumes", name)
}

// bind stores the vendor's claim and volume, with the keys and the endpoint filled in.
func (f *fixture) bind(url string, change func(*corev1.PersistentVolume, *corev1.PersistentVolumeClaim)) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "oss-test", UID: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "oss-test"},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "oss-test"},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			ClaimRef:    &corev1.ObjectReference{Namespace: "default", Name: "oss-test", UID: "claim"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "ossplugin.csi.alibabacloud.com", VolumeHandle: "oss-csi-pv",
				VolumeAttributes: map[string]string{
					"akId": s3test.KeyID, "akSecret": s3test.KeySecret, "bucket": "models",
					"otherOpts": "-o max_stat_cache_size=0 -o allow_other", "url": url,
				},
			}},
		},
	}
	if change != nil {
		change(volume, claim)
	}
	f.objects.mu.Lock()
	defer f.objects.mu.Unlock()
	f.objects.claims = map[string]*corev1.PersistentVolumeClaim{claim.Name: claim}
	f.objects.volumes = map[string]*corev1.PersistentVolume{volume.Name: volume}
}

// claiming is a pod that mounts the claim.
func claiming(uid string) *corev1.Pod {
	pod := podWith(volume("data", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "oss-test"}}))
	pod.UID = types.UID(uid)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/oss-data"}}
	return pod
}

// newBucket is a fixture with a gateway, a bucket in it and the vendor's claim on that.
func newBucket(t *testing.T) (*fixture, *s3test.Gateway) {
	t.Helper()
	f := newFixture(t)
	gateway := s3test.Start(t)
	gateway.Bucket(t, "models", map[string]string{"hello.txt": "hello", "llm/config.json": "{}"})
	f.bind("http://"+gateway.Address, nil)
	return f, gateway
}

func (f *fixture) setup(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	return mounted["data"]
}

func TestBucketIsMountedForEachPod(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	one, two := claiming("one"), claiming("two")
	first, second := f.setup(t, one), f.setup(t, two)
	require.Equal(t, "hello", read(t, first, "hello.txt"))

	// What one pod has closed the other reads, and so does everybody else.
	require.NoError(t, os.WriteFile(filepath.Join(first, "new.txt"), []byte("new"), 0o600))
	require.Equal(t, "new", read(t, second, "new.txt"))
	object, err := gateway.Object("models", "new.txt")
	require.NoError(t, err)
	require.Equal(t, "new", object)

	// The API is asked for nothing where all is there.
	f.objects.down = http.ErrServerClosed
	require.Equal(t, first, f.setup(t, one))
	f.teardown(t, one.UID)
	require.NoDirExists(t, filepath.Join(f.root, "one"))
	require.Equal(t, "hello", read(t, second, "hello.txt"), "the other pod has its own")
}

func TestBucketByHostName(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	// models.localhost: what begins its name is the bucket.
	f.bind("http://"+gateway.Name, nil)
	require.Equal(t, "hello", read(t, f.setup(t, claiming("one")), "hello.txt"))
}

func TestKeysFromSecret(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	f.bind("http://"+gateway.Address, func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.CSI.VolumeAttributes["akId"], v.Spec.CSI.VolumeAttributes["akSecret"] = "other", "other"
		v.Spec.CSI.NodePublishSecretRef = &corev1.SecretReference{Namespace: "default", Name: "oss"}
		v.Spec.CSI.VolumeAttributes["path"] = "/llm"
	})
	pod := claiming("one")
	_, err := f.Setup(t.Context(), pod)
	require.ErrorContains(t, err, `nodePublishSecretRef: secret "oss" not found`)
	f.objects.secrets["oss"] = &corev1.Secret{Data: map[string][]byte{"akId": []byte(s3test.KeyID)}}
	_, err = f.Setup(t.Context(), pod)
	require.ErrorContains(t, err, "has no akSecret")
	f.objects.secrets["oss"].Data["akSecret"] = []byte(s3test.KeySecret)
	require.Equal(t, "{}", read(t, f.setup(t, pod), "config.json"))
}

func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	for name, change := range map[string]func(*corev1.Pod, *corev1.PersistentVolume){
		"the claim is read-only in the pod": func(p *corev1.Pod, _ *corev1.PersistentVolume) {
			p.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
		},
		"the volume is read-only": func(_ *corev1.Pod, v *corev1.PersistentVolume) { v.Spec.CSI.ReadOnly = true },
		"its access mode is": func(_ *corev1.Pod, v *corev1.PersistentVolume) {
			v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
		},
		"no container writes": func(p *corev1.Pod, _ *corev1.PersistentVolume) { p.Spec.Containers[0].VolumeMounts[0].ReadOnly = true },
	} {
		pod := claiming(strings.ReplaceAll(name, " ", "-"))
		f.bind("http://"+gateway.Address, func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) { change(pod, v) })
		require.ErrorIs(t, os.WriteFile(filepath.Join(f.setup(t, pod), "x"), nil, 0o600), syscall.EROFS, name)
		f.teardown(t, pod.UID)
	}

	// Not root, and no member of a group that the machine knows: by the fsGroup.
	f.bind("http://"+gateway.Address, nil)
	pod := claiming("group")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](2000)}
	at := f.setup(t, pod)
	command := exec.Command("sh", "-c", `cat "$0/hello.txt" && echo by-group > "$0/llm/group.txt"`, at)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{2000}}}
	require.NoError(t, os.Chmod(f.root, 0o755)) // as it is seen by a container, which gets there by its own mounts
	for dir := at; dir != "/tmp"; dir = filepath.Dir(dir) {
		if dir != at {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
	}
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "hello", string(out))
	info, err := os.Stat(filepath.Join(at, "llm", "group.txt"))
	require.NoError(t, err)
	require.Equal(t, uint32(2000), info.Sys().(*syscall.Stat_t).Gid)
}

func TestClaimsThatWait(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	type api = func(*corev1.PersistentVolume, *corev1.PersistentVolumeClaim)
	for why, change := range map[string]api{
		`persistentvolumeclaim "oss-test" is not bound yet`: func(_ *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) {
			c.Status.Phase = corev1.ClaimPending
		},
		`persistentvolumeclaim "oss-test" is being deleted`: func(_ *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) {
			c.DeletionTimestamp = ptr.To(metav1.Now())
		},
		`is not bound to persistentvolumeclaim "oss-test"`: func(_ *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) { c.UID = "another" },
		`persistentvolume "gone", which`:                   func(_ *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "gone" },
		`"oss-test" is no CSI volume`: func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}
		},
		`"oss-test" has driver "disk.example.com"`: func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.CSI.Driver = "disk.example.com"
		},
		`"oss-test" has volumeMode Block`: func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		},
		`passwd_file can't be set here`: func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.CSI.VolumeAttributes["otherOpts"] = "-o passwd_file=/etc/shadow"
		},
		`mountOptions: "credlib" can't be set`: func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.MountOptions = []string{"credlib=/tmp/x.so"}
		},
	} {
		f.bind("http://127.0.0.1:9", change)
		_, err := f.Setup(t.Context(), claiming("one"))
		require.ErrorContains(t, err, why)
		require.ErrorContains(t, err, `MountVolume.SetUp failed for volume "data" : `)
	}
}

// Each cause is told with its fix and without a key, leaves nothing, and what is mended
// is mounted by the next try.
func TestCausesAreToldAndMended(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	// The time of one machine can't be put back for a test: this says what S3 and OSS say.
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<Error><Code>RequestTimeTooSkewed</Code></Error>"))
	}))
	defer late.Close()
	pod := claiming("one")
	for why, change := range map[string]func(map[string]string){
		`there is no bucket "missing" at ` + gateway.Address: func(a map[string]string) { a["bucket"] = "missing" },
		"its secret is another":                              func(a map[string]string) { a["akSecret"] = "wrong" },
		"does not know the access key":                       func(a map[string]string) { a["akId"] = "AKIDNOBODY" },
		"127.0.0.1:9 does not answer this machine":           func(a map[string]string) { a["url"], a["otherOpts"] = "http://127.0.0.1:9", "-o retries=1" },
		"finds no address for nowhere.invalid":               func(a map[string]string) { a["url"], a["otherOpts"] = "nowhere.invalid", "-o retries=1" },
		"set the machine's time":                             func(a map[string]string) { a["url"] = late.URL },
		"does not know an option of the volume":              func(a map[string]string) { a["otherOpts"] = "-o direct_read_chunk_size=1" },
	} {
		f.bind("http://"+gateway.Address, func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			change(v.Spec.CSI.VolumeAttributes)
		})
		_, err := f.Setup(t.Context(), pod)
		require.ErrorContains(t, err, why)
		require.NotContains(t, err.Error(), s3test.KeyID)
		require.NotContains(t, err.Error(), s3test.KeySecret)
		require.NoDirExists(t, filepath.Join(f.root, "one", helpersDir, "data"))
	}
	f.o.FUSEDevice = "/dev/no-such-device"
	_, err := f.Setup(t.Context(), pod)
	require.ErrorContains(t, err, "modprobe fuse")
	f.o.FUSEDevice = "/dev/fuse"
	f.bind("http://"+gateway.Address, nil)
	require.Equal(t, "hello", read(t, f.setup(t, pod), "hello.txt"))
}

func TestMissingHelperIsNamed(t *testing.T) {
	f := newFixture(t)
	f.bind("http://127.0.0.1:9", nil)
	t.Setenv("PATH", "/nonexistent")
	_, err := f.Setup(t.Context(), claiming("one"))
	require.ErrorContains(t, err, "neither ossfs nor s3fs is installed on this machine")
}

// told keeps what a Keep tells.
type told struct {
	mu               sync.Mutex
	mended, notThere []string
}

func (w *told) Mended(message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mended = append(w.mended, message)
}

func (w *told) NotMended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notThere = append(w.notThere, err.Error())
}

func (w *told) counts() (mended, notThere int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.mended), len(w.notThere)
}

// killHelper ends the helper of a pod's volume as an out-of-memory kill does.
func (f *fixture) killHelper(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	at := f.fuseMount(pod.UID, "data")
	out, err := exec.Command("pkill", "-KILL", "-f", at.Beside()).CombinedOutput() // a path of this test alone
	require.NoError(t, err, "%s", out)
}

// endHelper is killHelper that waits for the end, where no Keep runs a new one at once.
func (f *fixture) endHelper(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	f.killHelper(t, pod)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.fuseMount(pod.UID, "data").Ended(ctx))
}

func TestKeepMountsAgain(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	pod := claiming("one")
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: "blind", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/sub", SubPath: "llm"}},
	})
	at := f.setup(t, pod)
	ctx, cancel := context.WithCancel(t.Context())
	watcher, done := &told{}, make(chan struct{})
	go func() {
		defer close(done)
		f.Keep(ctx, pod, watcher)
	}()
	f.killHelper(t, pod)
	require.Eventually(t, func() bool { mended, _ := watcher.counts(); return mended == 1 }, patience, time.Millisecond)
	require.Equal(t, "hello", read(t, at, "hello.txt"))
	require.Contains(t, watcher.mended[0], "restarted, since they mount it by subPath, or read-only where others write: blind")

	// While it can't be mended that is told, once; then it is mended.
	f.bind("http://"+gateway.Address, func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.CSI.VolumeAttributes["bucket"] = "missing"
	})
	f.killHelper(t, pod)
	require.Eventually(t, func() bool { _, notThere := watcher.counts(); return notThere == 1 }, patience, time.Millisecond)
	f.bind("http://"+gateway.Address, nil)
	require.Eventually(t, func() bool { mended, _ := watcher.counts(); return mended == 2 }, patience, time.Millisecond)
	require.Equal(t, "hello", read(t, at, "hello.txt"))
	require.Len(t, watcher.notThere, 1)

	cancel()
	<-done
	f.teardown(t, pod.UID)
	require.NoDirExists(t, filepath.Join(f.root, "one"))
}

// A container that starts again finds the subPath of a volume whose helper had ended.
func TestSubPathOfBucket(t *testing.T) {
	t.Parallel()
	f, gateway := newBucket(t)
	pod := claiming("one")
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "data", MountPath: "/all", MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)},
		{Name: "data", MountPath: "/llm", SubPath: "llm"},
		{Name: "data", MountPath: "/new", SubPath: "made/here"},
		{Name: "data", MountPath: "/ro", ReadOnly: true},
		{Name: "data", MountPath: "/rro", ReadOnly: true, RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)},
	}
	for range 2 {
		mounted, err := f.Setup(t.Context(), pod)
		require.NoError(t, err)
		var mounts []*runtimeapi.Mount
		require.EventuallyWithT(t, func(t *assert.CollectT) { // as pods do: see teardown
			mounts, err = f.Mounts(pod, c, mounted)
			require.NoError(t, err)
		}, patience, 10*time.Millisecond)
		require.Equal(t, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, mounts[0].Propagation)
		require.Equal(t, "{}", read(t, mounts[1].HostPath, "config.json"))
		require.NoError(t, os.WriteFile(filepath.Join(mounts[2].HostPath, "x"), []byte("x"), 0o600))
		for _, m := range mounts[1:] {
			require.Equal(t, runtimeapi.MountPropagation_PROPAGATION_PRIVATE, m.Propagation)
		}
		require.False(t, mounts[0].SelinuxRelabel)
		f.endHelper(t, pod)
	}
	object, err := gateway.Object("models", "made/here/x")
	require.NoError(t, err)
	require.Equal(t, "x", object)
	c.VolumeMounts[0].MountPropagation = ptr.To(corev1.MountPropagationBidirectional)
	_, err = f.Mounts(pod, c, Mounted{"data": f.setup(t, pod)})
	require.ErrorContains(t, err, `mountPropagation "Bidirectional" is not supported`)
}

// A second agent, after kill -9 of the first, finds what is mounted and takes it away.
func TestNextAgentTakesOver(t *testing.T) {
	t.Parallel()
	f, _ := newBucket(t)
	pod := claiming("one")
	at := f.setup(t, pod)
	next := f.again(t)
	f.objects.down = http.ErrServerClosed // it asks for nothing
	mounted, err := next.Setup(t.Context(), pod)
	require.NoError(t, err)
	require.Equal(t, at, mounted["data"])
	uids, err := next.PodUIDs()
	require.NoError(t, err)
	require.Equal(t, []types.UID{"one"}, uids)
	teardownBy(t, next, pod.UID)
	require.NoDirExists(t, filepath.Join(f.root, "one"))
	require.Error(t, exec.Command("pgrep", "-f", f.root).Run(), "no helper is left")
}
