package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestMountPathsOfTheVendorsPod(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(
		volume("sharememory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}),
		volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}),
	)
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "sharememory", MountPath: "dev/shm"},
		{Name: "config", MountPath: "/etc/config/"},
		{Name: "sharememory", MountPath: "/ro", ReadOnly: true, MountPropagation: ptr.To(corev1.MountPropagationNone)},
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
		{"/ro", mounted["sharememory"], true, runtimeapi.MountPropagation_PROPAGATION_PRIVATE},
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
		`mountPropagation "HostToContainer"`: {Name: "disk", MountPath: "/x", MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)},
		`subPathExpr "$(A)" is not expanded`: {Name: "disk", MountPath: "/x", SubPathExpr: "$(A)"},
		`subPath "../x" leads out`:           {Name: "disk", MountPath: "/x", SubPath: "../x"},
		`subPath "a/../b" leads out`:         {Name: "disk", MountPath: "/x", SubPath: "a/../b"},
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

// requireSubPath is subPathMount of one that is fine, which has to be called again, as pods do:
// see teardown.
func requireSubPath(t *testing.T, f *fixture, pod *corev1.Pod, mounted Mounted, sub string) (host string) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		var err error
		host, err = subPathMount(f, pod, mounted, sub)
		require.NoError(t, err)
	}, patience, 10*time.Millisecond)
	return host
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
	require.NoError(t, os.WriteFile(filepath.Join(disk, "good/beside"), []byte("beside"), 0o600))
	for name, target := range map[string]string{
		"by-way-of": "in/../beside", "nowhere": "absent/x", "out-and-in": "../disk/good", "absolute": "/etc", "up": "../../../../../../../etc", "in": "good/deep", "chain": "up", "self": "self",
		"absolute-inside": filepath.Join(disk, "good"), "proc": "/proc/self/root",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(disk, name)))
	}

	for _, sub := range []string{"absolute", "absolute/passwd", "up", "chain", "proc", "self", "nowhere", "out-and-in", "absolute-inside", "in/../../x", "new/../../../x"} {
		host, err := subPathMount(f, pod, mounted, sub)
		require.Error(t, err, "subPath %q was mounted at %q", sub, host)
	}
	host := requireSubPath(t, f, pod, mounted, "in")
	require.Equal(t, "mine", read(t, host, "f"))
	host = requireSubPath(t, f, pod, mounted, "by-way-of")
	require.Equal(t, "beside", read(t, host), "a link's .. is that of what the link before it leads to")
	host = requireSubPath(t, f, pod, mounted, "good/deep/f")
	require.Equal(t, "mine", read(t, host), "a file is a subPath too")
	host = requireSubPath(t, f, pod, mounted, "made/on/demand")
	require.Equal(t, os.ModeDir|0o777, mode(t, host))
	requireSubPath(t, f, pod, mounted, "pipe") // a pipe must not hold the agent up

	// The same again keeps the mount; an exchanged directory is mounted anew.
	host = requireSubPath(t, f, pod, mounted, "good")
	points, err := f.mountsBelow(host)
	require.NoError(t, err)
	require.Len(t, points, 1)
	require.NoError(t, os.Rename(filepath.Join(disk, "good"), filepath.Join(disk, "old")))
	require.NoError(t, os.Mkdir(filepath.Join(disk, "good"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(disk, "good/new"), nil, 0o600))
	again := requireSubPath(t, f, pod, mounted, "good")
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

	stop := exchange(filepath.Join(disk, "d"), filepath.Join(disk, "thief"))
	defer stop()
	untilBoth(t, 50, func(int) bool {
		host, err := subPathMount(f, pod, mounted, "d")
		if err == nil {
			require.NoFileExists(t, filepath.Join(host, "stolen"))
		}
		return err == nil
	})
}

// exchange lets a container exchange two paths without end, until stop is called.
func exchange(a, b string) (stop func()) {
	over := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	return func() { close(over); attacker.Wait() }
}

// untilBoth tries until it has gone well and been refused that many times each: a race
// that one side always wins says nothing.
func untilBoth(t *testing.T, times int, try func(i int) bool) {
	t.Helper()
	well, refused, end := 0, 0, time.Now().Add(2*time.Minute)
	for i := 0; well < times || refused < times; i++ {
		if try(i) {
			well++
		} else {
			refused++
		}
		require.True(t, time.Now().Before(end), "%d went well, %d were refused", well, refused)
	}
}

// While a container exchanges a directory for a link to the machine's files, no
// directory is made out there.
func TestMakingSubPathsCannotBeRaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	disk := mounted["disk"]
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(disk, "thief")))
	require.NoError(t, os.Mkdir(filepath.Join(disk, "d"), 0o755))

	stop := exchange(filepath.Join(disk, "d"), filepath.Join(disk, "thief"))
	root, err := os.OpenRoot(disk)
	require.NoError(t, err)
	untilBoth(t, 200, func(i int) bool {
		found, err := openSubPath(root, fmt.Sprintf("d/%d/deep", i), true)
		if err == nil {
			require.NoError(t, found.Close())
		}
		return err == nil
	})
	stop()
	require.NoError(t, root.Close())
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// What a container has put at a subPath is not opened: a device may do something then.
func TestSubPathOpensNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pod := podWith(volume("disk", corev1.VolumeSource{}))
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	device := filepath.Join(mounted["disk"], "null")
	require.NoError(t, unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))) // /dev/null
	require.NoError(t, os.Symlink("null", filepath.Join(mounted["disk"], "link")))
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	require.NoError(t, err)
	defer func() { _ = unix.Close(events) }()
	_, err = unix.InotifyAddWatch(events, device, unix.IN_OPEN)
	require.NoError(t, err)
	for _, sub := range []string{"null", "link"} {
		_, err = subPathMount(f, pod, mounted, sub)
		require.NoError(t, err)
	}
	_, err = unix.Read(events, make([]byte, 4096))
	require.ErrorIs(t, err, unix.EAGAIN, "it was opened")
}

func TestMadeSubPathsAreLikeTheirVolume(t *testing.T) {
	t.Parallel()
	for medium, want := range map[corev1.StorageMedium]os.FileMode{
		corev1.StorageMediumDefault: os.ModeDir | os.ModeSetgid | 0o777,
		corev1.StorageMediumMemory:  os.ModeDir | os.ModeSetgid | os.ModeSticky | 0o777,
	} {
		t.Run(string("medium "+medium), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			pod := podWith(volume("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}))
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](4242)}
			mounted, err := f.Setup(t.Context(), pod)
			require.NoError(t, err)
			_, err = subPathMount(f, pod, mounted, "a/b")
			require.NoError(t, err)
			for _, path := range []string{".", "a", "a/b"} {
				require.Equal(t, want, mode(t, mounted["disk"], path))
				var s unix.Stat_t
				require.NoError(t, unix.Stat(filepath.Join(mounted["disk"], path), &s))
				require.EqualValues(t, 4242, s.Gid)
			}
		})
	}
}
