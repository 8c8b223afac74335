package volumes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/mount-utils"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi"
	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
	"github.com/ainode/ainode/nodeagent/internal/pluginregistration"
)

const diskDriver = "disk.example.com"

// driverObjects are what of the API a driver needs.
type driverObjects struct {
	*stored
	spec   storagev1.CSIDriverSpec
	tokens Tokens
}

func (o driverObjects) CSIDriver(context.Context, string) (*storagev1.CSIDriver, error) {
	return &storagev1.CSIDriver{Spec: o.spec}, nil
}

func (o driverObjects) VolumeAttachment(context.Context, string) (*storagev1.VolumeAttachment, error) {
	return nil, errors.New("nothing is attached here")
}

func (o driverObjects) Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return o.tokens.Token(ctx, namespace, account, request)
}

// newDisk is a fixture with a driver that is registered, and a claim on a volume of it.
func newDisk(t *testing.T, spec storagev1.CSIDriverSpec, change func(*csitest.Driver, *corev1.PersistentVolume)) (*fixture, *csitest.Driver) {
	t.Helper()
	f := newFixture(t)
	dir, err := os.MkdirTemp("", "csi") // the path of a socket has 107 bytes at most
	require.NoError(t, err)
	d := csitest.New(t, dir, diskDriver)
	d.Volume(t, "vol-1", map[string]string{"hello.txt": "hello"})
	f.bind("", func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: diskDriver, VolumeHandle: "vol-1", FSType: "ext4"}
		if change != nil {
			change(d, v)
		}
	})
	drivers := csi.NewDrivers()
	volumes, err := csi.New(csi.Options{Dir: dir, Node: "ai-1", Boot: "one", Drivers: drivers, Mounter: mount.New("")})
	require.NoError(t, err)
	d.Serve(t)
	watcher := &pluginregistration.Watcher{Dir: filepath.Join(dir, "plugins_registry"), Handlers: map[string]pluginregistration.Handler{"CSIPlugin": drivers}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = watcher.Run(ctx) })
	running.Go(func() { _ = volumes.Run(ctx) })
	t.Cleanup(func() {
		uids, err := f.PodUIDs()
		require.NoError(t, err)
		for _, uid := range uids {
			f.teardown(t, uid)
		}
		require.Eventually(t, func() bool { return len(csitest.Below(dir)) == 0 }, patience, time.Millisecond)
		cancel()
		running.Wait()
		require.NoError(t, os.RemoveAll(dir))
	})
	require.Eventually(t, func() bool { return len(drivers.Registered()) == 1 }, patience, time.Millisecond)
	if spec.AttachRequired == nil {
		spec.AttachRequired = ptr.To(false)
	}
	f.o.CSI, f.o.Drivers = volumes, driverObjects{stored: f.objects, spec: spec}
	return f, d
}

func gid(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Gid
}

func TestGroupOfADisk(t *testing.T) {
	t.Parallel()
	grouped := func(uid string, policy *corev1.PodFSGroupChangePolicy) *corev1.Pod {
		pod := claiming(uid)
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](2000), FSGroupChangePolicy: policy}
		return pod
	}
	f, d := newDisk(t, storagev1.CSIDriverSpec{}, nil)
	at := f.setup(t, grouped("one", nil))
	require.EqualValues(t, 2000, gid(t, filepath.Join(at, "hello.txt")))
	// A root that looks as if it had been given already is enough where the pod says so.
	file := filepath.Join(d.Data, "vol-1", "hello.txt")
	require.NoError(t, os.Chown(file, 0, 0))
	f.setup(t, grouped("two", ptr.To(corev1.FSGroupChangeOnRootMismatch)))
	require.EqualValues(t, 0, gid(t, file))
	f.setup(t, grouped("three", ptr.To(corev1.FSGroupChangeAlways)))
	require.EqualValues(t, 2000, gid(t, file))

	// The driver sets it where it can.
	f, d = newDisk(t, storagev1.CSIDriverSpec{}, func(d *csitest.Driver, _ *corev1.PersistentVolume) {
		d.Can = append(d.Can, csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
	})
	at = f.setup(t, grouped("one", nil))
	require.EqualValues(t, 0, gid(t, filepath.Join(at, "hello.txt")))
	require.Equal(t, "2000", d.Calls(csitest.Publish)[0].Published.VolumeCapability.GetMount().VolumeMountGroup)

	f, _ = newDisk(t, storagev1.CSIDriverSpec{FSGroupPolicy: ptr.To(storagev1.NoneFSGroupPolicy)}, nil)
	require.EqualValues(t, 0, gid(t, filepath.Join(f.setup(t, grouped("one", nil)), "hello.txt")))
}

func TestDiskIsMountedForAContainer(t *testing.T) {
	t.Parallel()
	f, d := newDisk(t, storagev1.CSIDriverSpec{}, nil)
	pod := claiming("one")
	pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	mounted, err := f.Setup(t.Context(), pod)
	require.NoError(t, err)
	mounts, err := f.Mounts(pod, &pod.Spec.Containers[0], mounted)
	require.NoError(t, err)
	require.True(t, mounts[0].Readonly)
	require.Zero(t, mounts[0].Propagation, "nothing is mounted over it later")
	require.False(t, mounts[0].SelinuxRelabel, "it takes no labels")
	f.o.Mounter = mount.NewFakeMounter([]mount.MountPoint{{Path: mounted["data"], Opts: []string{"rw", "seclabel"}}})
	mounts, err = f.Mounts(pod, &pod.Spec.Containers[0], mounted)
	require.NoError(t, err)
	require.False(t, mounts[0].SelinuxRelabel, "what is read-only takes none either")
	writer := claiming("two")
	at := f.setup(t, writer)
	f.o.Mounter = mount.NewFakeMounter([]mount.MountPoint{{Path: at, Opts: []string{"rw", "seclabel"}}})
	mounts, err = f.Mounts(writer, &writer.Spec.Containers[0], Mounted{"data": at})
	require.NoError(t, err)
	require.False(t, mounts[0].Readonly)
	require.True(t, mounts[0].SelinuxRelabel)
	f.o.Mounter = mount.New("")
	f.teardown(t, writer.UID)

	f.teardown(t, pod.UID)
	uids, err := f.PodUIDs()
	require.NoError(t, err)
	require.Empty(t, uids)
	require.Len(t, d.Calls(csitest.Unpublish), 2)
}

// The volume says csi.readOnly, and its pod nothing: the container can't write, whatever
// the driver makes of it.
func TestReadOnlyVolumeIsSoInTheContainer(t *testing.T) {
	t.Parallel()
	f, d := newDisk(t, storagev1.CSIDriverSpec{}, func(_ *csitest.Driver, v *corev1.PersistentVolume) { v.Spec.CSI.ReadOnly = true })
	pod := claiming("one")
	at := f.setup(t, pod)
	require.True(t, d.Calls(csitest.Publish)[0].Published.Readonly)
	mounts, err := f.Mounts(pod, &pod.Spec.Containers[0], Mounted{"data": at})
	require.NoError(t, err)
	require.True(t, mounts[0].Readonly)
}

func TestDisksThatAreRefused(t *testing.T) {
	t.Parallel()
	f, d := newDisk(t, storagev1.CSIDriverSpec{}, nil)
	for why, change := range map[string]func(*corev1.PersistentVolume){
		"has volumeMode Block": func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
		`may not be used on this node (spec.nodeAffinity)`: func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}},
			}}}}
		},
	} {
		f.bind("", func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
			v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: diskDriver, VolumeHandle: "vol-1"}
			change(v)
		})
		_, err := f.Setup(t.Context(), claiming("one"))
		require.ErrorContains(t, err, why)
	}
	require.Empty(t, d.Calls())
	f.o.Node = func() *corev1.Node { n := &corev1.Node{}; n.Labels = map[string]string{"zone": "b"}; return n }
	f.bind("", func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: diskDriver, VolumeHandle: "vol-1"}
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}},
		}}}}
	})
	f.setup(t, claiming("one"))
	without := f.again(t)
	without.o.Node = f.o.Node
	_, err := without.Setup(t.Context(), claiming("two"))
	require.ErrorContains(t, err, "this agent has no CSI drivers")
}

// A driver that wants it is called again and again; what fails then is told once, and
// leaves what is there.
func TestKeepRepublishes(t *testing.T) {
	t.Parallel()
	f, d := newDisk(t, storagev1.CSIDriverSpec{RequiresRepublish: ptr.To(true)}, nil)
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	f.o.Clock = clock
	pod := claiming("one")
	at := f.setup(t, pod)
	ctx, cancel := context.WithCancel(t.Context())
	watcher, done := &told{}, make(chan struct{})
	go func() {
		defer close(done)
		f.Keep(ctx, pod, watcher)
	}()
	step := func(calls int) {
		require.Eventually(t, clock.HasWaiters, patience, time.Millisecond)
		clock.Step(republishEvery)
		require.Eventually(t, func() bool { return len(d.Calls(csitest.Publish)) == calls }, patience, time.Millisecond, strconv.Itoa(calls))
	}
	step(2)
	d.Fail(csitest.Publish, status.Error(codes.Internal, "the vault is sealed"))
	step(3)
	step(4)
	require.Equal(t, "hello", read(t, at, "hello.txt"))
	d.Fail(csitest.Publish, nil)
	step(5)
	cancel()
	<-done
	_, notThere := watcher.counts()
	require.Equal(t, 1, notThere)
	require.Contains(t, watcher.notThere[0], `MountVolume.SetUp failed for volume "data" : persistentvolume "oss-test": CSI driver disk.example.com: NodePublishVolume: Internal: the vault is sealed`)
}

// It gets the same token again and again, until that grows old.
func TestRepublishingAsksForNoNewTokens(t *testing.T) {
	t.Parallel()
	spec := storagev1.CSIDriverSpec{RequiresRepublish: ptr.To(true), TokenRequests: []storagev1.TokenRequest{{Audience: "vault"}}}
	f, d := newDisk(t, spec, nil)
	clock, source := clocktesting.NewFakeClock(time.Unix(1e9, 0)), &issuer{}
	spec.AttachRequired = ptr.To(false)
	f.o.Clock, f.tokens.clock, f.o.Drivers = clock, clock, driverObjects{stored: f.objects, spec: spec, tokens: source}
	pod := claiming("one")
	f.setup(t, pod)
	again := func() {
		volume, err := f.claimed(t.Context(), pod, pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName)
		require.NoError(t, err)
		_, err = f.publish(t.Context(), pod, &pod.Spec.Volumes[0], volume, true)
		require.NoError(t, err)
		clock.Step(republishEvery)
	}
	for range 48 { // of the hour that it lives
		again()
	}
	require.Equal(t, 1, source.issued)
	again()
	require.Equal(t, 2, source.issued)
	calls := d.Calls(csitest.Publish)
	require.Contains(t, calls[len(calls)-1].Published.VolumeContext["csi.storage.k8s.io/serviceAccount.tokens"], "token-2")
	f.teardown(t, pod.UID)
	require.Empty(t, f.tokens.known)
}

// One that does not want it is left alone.
func TestKeepLeavesDisksAlone(t *testing.T) {
	t.Parallel()
	f, _ := newDisk(t, storagev1.CSIDriverSpec{}, nil)
	pod := claiming("one")
	f.setup(t, pod)
	f.objects.down = errors.New("nobody is asked")
	f.Keep(t.Context(), pod, &told{}) // returns
	f.objects.down = nil
}
