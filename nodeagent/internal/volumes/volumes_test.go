package volumes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/objects"
)

// stored are ConfigMaps and Secrets by name; an error in down is returned for all.
type stored struct {
	mu         sync.Mutex
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
	down       error
}

func (o *stored) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.configMaps[name]; found != nil && o.down == nil {
		return found, nil
	}
	return nil, o.missing("configmaps", name)
}

func (o *stored) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.secrets[name]; found != nil && o.down == nil {
		return found, nil
	}
	return nil, o.missing("secrets", name)
}

func (o *stored) missing(kind, name string) error {
	if o.down != nil {
		return o.down
	}
	return apierrors.NewNotFound(corev1.Resource(kind), name)
}

func (o *stored) Follow(context.Context, []objects.Reference, func()) {}

func (o *stored) set(cm *corev1.ConfigMap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.configMaps[cm.Name] = cm
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

// fixture is a manager on the machine's real mounts.
type fixture struct {
	*Manager
	objects *stored
	root    string
	boot    string
}

// refresh is Refresh, which must succeed.
func (f *fixture) refresh(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	_, err := f.Refresh(t.Context(), pod)
	require.NoError(t, err)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if testing.Short() {
		t.Skip("mounts; left out with -short")
	}
	require.Zero(t, os.Geteuid(), "these tests mount: run them as root, or leave them out with -short")
	f := &fixture{
		objects: &stored{
			configMaps: map[string]*corev1.ConfigMap{"settings": configMap("settings", map[string]string{"a.conf": "1", "b.conf": "2"})},
			secrets:    map[string]*corev1.Secret{"keys": {ObjectMeta: metav1.ObjectMeta{Name: "keys"}, Data: map[string][]byte{"token": []byte("s3cret")}}},
		},
		root: filepath.Join(t.TempDir(), "pods"),
		boot: "one",
	}
	f.Manager = f.again(t)
	t.Cleanup(func() {
		uids, err := f.PodUIDs()
		require.NoError(t, err)
		for _, uid := range uids {
			f.teardown(t, uid)
		}
	})
	return f
}

// teardown is Teardown, which has to be called again, as pods do: a file that another
// test's fork(2) has open too makes a mount busy until exec(2).
func (f *fixture) teardown(t *testing.T, uid types.UID) {
	t.Helper()
	teardownBy(t, f.Manager, uid)
}

// teardownBy is teardown by another manager.
func teardownBy(t *testing.T, m *Manager, uid types.UID) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) { require.NoError(t, m.Teardown(context.Background(), uid)) }, patience, 10*time.Millisecond)
}

// again is the manager of an agent that was started again.
func (f *fixture) again(t *testing.T) *Manager {
	t.Helper()
	m, err := New(Options{Root: f.root, Objects: f.objects, Followed: f.objects, Claims: f.objects, Mounter: mount.New(""), Boot: f.boot, Allocatable: func() corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourceCPU: resource.MustParse("8")}
	}})
	require.NoError(t, err)
	return m
}

func podWith(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "0d9a6b6e-0001", Labels: map[string]string{"app": "x", "tier": "y"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
			}}},
			Volumes: volumes,
		},
	}
}

func volume(name string, source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: source}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(raw)
}

func mode(t *testing.T, path ...string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(filepath.Join(path...))
	require.NoError(t, err)
	return info.Mode()
}

func statfs(t *testing.T, path string) unix.Statfs_t {
	t.Helper()
	var s unix.Statfs_t
	require.NoError(t, unix.Statfs(path, &s))
	return s
}

func TestContentFollowsTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
			DefaultMode:          ptr.To[int32](0o640),
			Items:                []corev1.KeyToPath{{Key: "a.conf", Path: "deep/a"}, {Key: "b.conf", Path: "b", Mode: ptr.To[int32](0o400)}},
		}}),
		volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}),
		volume("optional", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "nowhere"}, Optional: ptr.To(true),
		}}),
		volume("down", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}},
			{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.cpu"}},
		}}}),
		volume("all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
		}}}),
	)
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)

	require.Equal(t, "1", read(t, mounted["config"], "deep/a"))
	require.Equal(t, fs.FileMode(0o640), mode(t, mounted["config"], "deep/a"))
	require.Equal(t, fs.FileMode(0o400), mode(t, mounted["config"], "b"))
	require.Equal(t, "s3cret", read(t, mounted["secret"], "token"))
	require.EqualValues(t, unix.TMPFS_MAGIC, statfs(t, mounted["secret"]).Type, "a secret must not reach a disk")
	require.EqualValues(t, unix.TMPFS_MAGIC, statfs(t, mounted["all"]).Type, "a secret must not reach a disk")
	require.Equal(t, "app=\"x\"\ntier=\"y\"", read(t, mounted["down"], "labels"))
	require.Equal(t, "64", read(t, mounted["down"], "memory"))
	require.Equal(t, "8", read(t, mounted["down"], "cpu"), "a limit that is not set is the node's")
	for name, want := range map[string]string{"a.conf": "1", "token": "s3cret", "name": "p"} {
		require.Equal(t, want, read(t, mounted["all"], name))
	}
	target, err := os.Readlink(filepath.Join(mounted["config"], "b"))
	require.NoError(t, err)
	require.Equal(t, "..data/b", target, "the layout that config reloaders know")
	entries, err := os.ReadDir(mounted["optional"])
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, strings.HasPrefix(e.Name(), ".."), "an optional ConfigMap that is missing gives no file, got %q", e.Name())
	}
}

func TestRefreshSwapsAndSetupDoesNotAsk(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
	}}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	before, err := os.Readlink(filepath.Join(mounted["config"], "..data"))
	require.NoError(t, err)

	f.refresh(t, pod)
	after, err := os.Readlink(filepath.Join(mounted["config"], "..data"))
	require.NoError(t, err)
	require.Equal(t, before, after, "nothing changed, nothing is written")

	f.objects.set(configMap("settings", map[string]string{"a.conf": "new", "c.conf": "3"}))
	f.refresh(t, pod)
	require.Equal(t, "new", read(t, mounted["config"], "a.conf"))
	require.Equal(t, "3", read(t, mounted["config"], "c.conf"))
	require.NoFileExists(t, filepath.Join(mounted["config"], "b.conf"))
	require.NoDirExists(t, filepath.Join(mounted["config"], before), "the old version goes")

	f.objects.down = errors.New("connection refused")
	again, err := f.again(t).Setup(t.Context(), pod)
	require.NoError(t, err, "what is written stays usable while the API is away")
	require.Equal(t, mounted, again)
	_, err = f.Refresh(t.Context(), pod)
	require.ErrorContains(t, err, "connection refused")
	require.Equal(t, "new", read(t, mounted["config"], "a.conf"))
}

func TestCrashInTheMiddleOfASwapIsMended(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
	}}))
	path := f.volume(pod.UID, "config")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "..version-left"), 0o700))
	require.NoError(t, os.Symlink("..version-left", filepath.Join(path, "..data_tmp")))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	require.Equal(t, "1", read(t, mounted["config"], "a.conf"))
	require.NoDirExists(t, filepath.Join(path, "..version-left"))
}

// After a crash of the machine a ConfigMap's files may be there and empty: they are not
// taken for written.
func TestContentOfAnotherBootIsWrittenAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
	}}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(mounted["config"], "a.conf"), 0))
	f.boot = "two"
	after := f.again(t)
	f.objects.down = errors.New("connection refused")
	_, err = after.Setup(t.Context(), pod)
	require.ErrorContains(t, err, "connection refused")
	f.objects.down = nil
	_, err = after.Setup(t.Context(), pod)
	require.NoError(t, err)
	require.Equal(t, "1", read(t, mounted["config"], "a.conf"))
}

func TestMemoryVolumeIsATmpfsOfItsSize(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limit *resource.Quantity
		mib   uint64
	}{
		"the pod's memory limit":           {nil, 64},
		"its sizeLimit":                    {ptr.To(resource.MustParse("16Mi")), 16},
		"no more than the pod's own limit": {ptr.To(resource.MustParse("1Gi")), 64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			pod := podWith(volume("shm", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: test.limit}}))
			mounted, err := f.Setup(t.Context(), pod)
			require.NoError(t, err)
			s := statfs(t, mounted["shm"])
			require.EqualValues(t, unix.TMPFS_MAGIC, s.Type)
			require.Equal(t, test.mib, s.Blocks*uint64(s.Bsize)>>20)
			require.Equal(t, fs.ModeDir|fs.ModeSticky|0o777, mode(t, mounted["shm"]))

			require.NoError(t, os.WriteFile(filepath.Join(mounted["shm"], "x"), []byte("kept"), 0o600))
			_, err = f.again(t).Setup(t.Context(), pod)
			require.NoError(t, err)
			require.Equal(t, "kept", read(t, mounted["shm"], "x"), "a restart must not mount over it")
		})
	}
}

func TestFSGroupOwnsVolumes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", DefaultMode: ptr.To[int32](0o400)}}),
	)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](4242)}
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	for _, path := range []string{mounted["disk"], filepath.Join(mounted["secret"], "token")} {
		var s unix.Stat_t
		require.NoError(t, unix.Stat(path, &s))
		require.EqualValues(t, 4242, s.Gid, path)
	}
	require.Equal(t, fs.FileMode(0o440), mode(t, mounted["secret"], "token"))
	require.NotZero(t, mode(t, mounted["disk"])&fs.ModeSetgid)
	f.refresh(t, pod)
}

func TestRefusedVolumes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, test := range map[string]struct {
		source corev1.VolumeSource
		want   string
	}{
		"hostPath": {corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}},
			`MountVolume.SetUp failed for volume "v" : volumes of kind hostPath are not supported on AI nodes`},
		"nfs":                {corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}, "kind nfs"},
		"claim":              {corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}, `persistentvolumeclaim "x" not found`},
		"huge pages":         {corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages}}, `medium "HugePages"`},
		"missing ConfigMap":  {corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}}}, `configmap "no" not found`},
		"missing Secret":     {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no"}}, `secret "no" not found`},
		"missing key":        {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", Items: []corev1.KeyToPath{{Key: "no", Path: "x"}}}}, "non-existent secret key: no"},
		"token":              {corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}}}}, "asks for no service-account tokens"},
		"path out of volume": {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", Items: []corev1.KeyToPath{{Key: "token", Path: "../../x"}}}}, "not one inside a volume"},
		"path into layout":   {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", Items: []corev1.KeyToPath{{Key: "token", Path: "..data"}}}}, "not one inside a volume"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podWith(volume("v", test.source))
			pod.UID = types.UID(strings.ReplaceAll(name, " ", "-"))
			_, err := f.Setup(t.Context(), pod)
			require.ErrorContains(t, err, test.want)
		})
	}
	_, err := f.Setup(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "../x"}})
	require.ErrorContains(t, err, "not the UID of a pod")
}

func TestTeardownLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("shm", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}),
		volume("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}),
		volume("disk", corev1.VolumeSource{}),
	)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "disk", MountPath: "/d", SubPath: "sub"}}
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	_, err = f.Mounts(pod, &pod.Spec.Containers[0], mounted)
	require.NoError(t, err)
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Equal(t, []types.UID{pod.UID}, uids)

	// Half done: one of the mounts is gone, as after a crash.
	require.NoError(t, unix.Unmount(mounted["shm"], 0))
	teardownBy(t, f.again(t), pod.UID)
	require.NoError(t, f.Teardown(t.Context(), pod.UID), "the second time it finds nothing to do")
	require.NoDirExists(t, filepath.Join(f.root, string(pod.UID)))
	points, err := f.mountsBelow(f.o.Root)
	require.NoError(t, err)
	require.Empty(t, points)
	uids, err = f.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids)
}

func TestTeardownKeepsWhatOthersKeepThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	_, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	other := filepath.Join(f.root, string(pod.UID), "containers")
	require.NoError(t, os.Mkdir(other, 0o700))
	require.NoError(t, f.Teardown(t.Context(), pod.UID))
	require.DirExists(t, other)
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids)
}
