package volumes

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

func tellsFigures(d *csitest.Driver, _ *corev1.PersistentVolume) {
	d.Can = append(d.Can, csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS)
}

// keeping is Keep, until stop is called.
func (f *fixture) keeping(t *testing.T, pod *corev1.Pod) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Keep(ctx, pod, &told{})
	}()
	stop = func() {
		t.Helper()
		cancel()
		require.Eventually(t, func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		}, patience, time.Millisecond)
	}
	t.Cleanup(stop)
	return stop
}

// awaitFigures waits until the pod's volume has figures that are as wanted.
func (f *fixture) awaitFigures(t *testing.T, pod *corev1.Pod, as func([]stats.VolumeStats) bool) []stats.VolumeStats {
	t.Helper()
	require.Eventually(t, func() bool { return as(f.Figures(pod.UID)) }, patience, time.Millisecond)
	return f.Figures(pod.UID)
}

func some(all []stats.VolumeStats) bool { return len(all) == 1 }
func none(all []stats.VolumeStats) bool { return len(all) == 0 }

func TestFiguresAreThoseOfTheLastMinute(t *testing.T) {
	t.Parallel()
	f, d := newDisk(t, storagev1.CSIDriverSpec{}, tellsFigures)
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	f.o.Clock = clock
	disk := filepath.Join(d.Data, "vol-1")
	require.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m,nr_inodes=100"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	pod := claiming("one")
	at := f.setup(t, pod)
	require.Empty(t, f.Figures(pod.UID))
	stop := f.keeping(t, pod)
	minute := func() {
		t.Helper()
		require.Eventually(t, clock.HasWaiters, patience, time.Millisecond)
		clock.Step(figuresEvery)
	}

	one := f.awaitFigures(t, pod, some)[0]
	require.Equal(t, "data", one.Name)
	require.Equal(t, stats.PVCReference{Namespace: "default", Name: "oss-test"}, *one.PVCRef)
	require.EqualValues(t, 8<<20, *one.CapacityBytes)
	require.EqualValues(t, 8<<20, *one.AvailableBytes)
	require.Zero(t, *one.UsedBytes)
	require.EqualValues(t, 100, *one.Inodes)
	require.Less(t, *one.InodesUsed, uint64(10))

	require.NoError(t, os.WriteFile(filepath.Join(at, "model"), make([]byte, 1<<20), 0o600))
	require.Zero(t, *f.Figures(pod.UID)[0].UsedBytes, "the driver is not asked for everybody who looks")
	require.Len(t, d.Calls(csitest.Stats), 1)
	minute()
	grown := f.awaitFigures(t, pod, func(all []stats.VolumeStats) bool { return some(all) && *all[0].UsedBytes > 0 })[0]
	require.EqualValues(t, 1<<20, *grown.UsedBytes)
	require.EqualValues(t, 7<<20, *grown.AvailableBytes)
	require.Equal(t, *one.InodesUsed+1, *grown.InodesUsed)

	d.Fail(csitest.Stats, status.Error(codes.Internal, "the backend is away"))
	minute()
	f.awaitFigures(t, pod, none)
	d.Fail(csitest.Stats, nil)
	minute()
	f.awaitFigures(t, pod, some)
	stop()
	require.Empty(t, f.Figures(pod.UID))
	require.Empty(t, f.figures.all)
}

// A driver that hangs leaves only its own volumes without figures.
func TestHangingFiguresAreMissedAlone(t *testing.T) {
	t.Parallel()
	f, hung := newDisk(t, storagev1.CSIDriverSpec{}, tellsFigures)
	hung.Hold(csitest.Stats)
	one, two := claiming("one"), claiming("two")
	dir, _, _ := strings.Cut(f.setup(t, one), "/pods/")
	other := csitest.New(t, dir, "other.example.com")
	other.Volume(t, "vol-2", nil)
	tellsFigures(other, nil)
	other.Serve(t)
	f.bind("", func(v *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) {
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: other.Name, VolumeHandle: "vol-2"}
	})
	require.Eventually(t, func() bool { return len(f.o.CSI.Drivers().Registered()) == 2 }, patience, time.Millisecond)
	f.setup(t, two)

	stopOne, stopTwo := f.keeping(t, one), f.keeping(t, two)
	require.Eventually(t, func() bool { return len(hung.Calls(csitest.Stats)) == 1 }, patience, time.Millisecond)
	f.awaitFigures(t, two, some)
	require.Empty(t, f.Figures(one.UID))
	// Nor does it keep its pod from ending.
	stopOne()
	f.teardown(t, one.UID)
	stopTwo()
	f.teardown(t, two.UID)
	require.Eventually(t, func() bool { return len(csitest.Below(dir)) == 0 }, patience, time.Millisecond, "unstaged before the other driver ends")
}
