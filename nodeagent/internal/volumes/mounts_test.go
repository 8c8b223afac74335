package volumes

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestMountPathsOfTheSeed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("sharememory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}),
		volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}),
	)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "sharememory", MountPath: "dev/shm"},
		{Name: "config", MountPath: "/etc/config/"},
		{Name: "sharememory", MountPath: "/ro", ReadOnly: true, MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)},
	}
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	mounts, err := f.Mounts(pod, &pod.Spec.Containers[0], mounted)
	require.NoError(t, err)
	type seen struct {
		Container, Host string
		ReadOnly        bool
		Propagation     runtimeapi.MountPropagation
	}
	var got []seen
	for _, m := range mounts {
		got = append(got, seen{m.ContainerPath, m.HostPath, m.Readonly, m.Propagation})
	}
	require.Empty(t, cmp.Diff([]seen{
		{"/dev/shm", mounted["sharememory"], false, runtimeapi.MountPropagation_PROPAGATION_PRIVATE},
		{"/etc/config", mounted["config"], true, runtimeapi.MountPropagation_PROPAGATION_PRIVATE},
		{"/ro", mounted["sharememory"], true, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
	}, got))
}

func TestMountsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	for want, vm := range map[string]corev1.VolumeMount{
		"the pod has no such volume":         {Name: "no", MountPath: "/x"},
		"can't be the container's root":      {Name: "disk", MountPath: "/"},
		`mountPropagation "Bidirectional"`:   {Name: "disk", MountPath: "/x", MountPropagation: ptr.To(corev1.MountPropagationBidirectional)},
		`subPathExpr "$(A)" is not expanded`: {Name: "disk", MountPath: "/x", SubPathExpr: "$(A)"},
		`subPath "../x" leads out`:           {Name: "disk", MountPath: "/x", SubPath: "../x"},
		`subPath "/etc" leads out`:           {Name: "disk", MountPath: "/x", SubPath: "/etc"},
	} {
		_, err := f.Mounts(pod, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{vm}}, mounted)
		require.ErrorContains(t, err, want)
	}
}

func TestNestedMountPointsAreMade(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}),
		volume("disk", corev1.VolumeSource{}),
	)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/etc/x"}, {Name: "disk", MountPath: "/etc/x/work/dir"}}
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(mounted["config"], "work/dir"))
	f.refresh(t, pod)
	require.DirExists(t, filepath.Join(mounted["config"], "work/dir"))
}

// subPathMount mounts one subPath of the volume "disk" and returns what the runtime
// would mount.
func subPathMount(f *fixture, pod *corev1.Pod, mounted Mounted, sub string) (string, error) {
	mounts, err := f.Mounts(pod, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "disk", MountPath: "/x", SubPath: sub}}}, mounted)
	if err != nil {
		return "", err
	}
	return mounts[0].HostPath, nil
}

func TestSubPathStaysInItsVolume(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	disk := mounted["disk"]
	require.NoError(t, os.MkdirAll(filepath.Join(disk, "good/deep"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(disk, "good/deep/f"), []byte("mine"), 0o600))
	require.NoError(t, unix.Mkfifo(filepath.Join(disk, "pipe"), 0o600))
	for name, target := range map[string]string{
		"absolute": "/etc", "up": "../../../../../../../etc", "in": "good/deep", "chain": "up", "self": "self",
		"absolute-inside": filepath.Join(disk, "good"), "proc": "/proc/self/root",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(disk, name)))
	}

	for _, sub := range []string{"absolute", "absolute/passwd", "up", "chain", "proc", "self", "absolute-inside", "in/../../x", "new/../../../x"} {
		host, err := subPathMount(f, pod, mounted, sub)
		require.Error(t, err, "subPath %q was mounted at %q", sub, host)
	}
	host, err := subPathMount(f, pod, mounted, "in")
	require.NoError(t, err)
	require.Equal(t, "mine", read(t, host, "f"))
	host, err = subPathMount(f, pod, mounted, "good/deep/f")
	require.NoError(t, err)
	require.Equal(t, "mine", read(t, host), "a file is a subPath too")
	host, err = subPathMount(f, pod, mounted, "made/on/demand")
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o777, mode(t, host))
	_, err = subPathMount(f, pod, mounted, "pipe")
	require.NoError(t, err, "a pipe must not hold the agent up")

	// The same again keeps the mount; an exchanged directory is mounted anew.
	host, err = subPathMount(f, pod, mounted, "good")
	require.NoError(t, err)
	points, err := f.mountsBelow(host)
	require.NoError(t, err)
	require.Len(t, points, 1)
	require.NoError(t, os.Rename(filepath.Join(disk, "good"), filepath.Join(disk, "old")))
	require.NoError(t, os.Mkdir(filepath.Join(disk, "good"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(disk, "good/new"), nil, 0o600))
	again, err := subPathMount(f, pod, mounted, "good")
	require.NoError(t, err)
	require.Equal(t, host, again)
	require.FileExists(t, filepath.Join(again, "new"))
	points, err = f.mountsBelow(host)
	require.NoError(t, err)
	require.Len(t, points, 1)
}

// While a container exchanges a directory for a link to the machine's files, what
// is mounted is the directory or nothing.
func TestSubPathCannotBeRaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	disk := mounted["disk"]
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "stolen"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(disk, "honest"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(disk, "thief")))
	require.NoError(t, os.Mkdir(filepath.Join(disk, "d"), 0o755))

	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(disk, "d"), unix.AT_FDCWD, filepath.Join(disk, "thief"), unix.RENAME_EXCHANGE)
			}
		}
	})
	mountedTimes := 0
	for range 150 {
		host, err := subPathMount(f, pod, mounted, "d")
		if err != nil {
			continue
		}
		mountedTimes++
		require.NoFileExists(t, filepath.Join(host, "stolen"))
	}
	close(stop)
	attacker.Wait()
	require.NotZero(t, mountedTimes, "the test must have mounted at least once to say anything")
}
