package csi

import (
	"path/filepath"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi/csitest"
)

// newMeasured is newDriver with one that tells figures: usage, or those of statfs(2).
func newMeasured(t *testing.T, usage []*csipb.VolumeUsage) (*fixture, *csitest.Driver) {
	t.Helper()
	f := newFixture(t)
	d := csitest.New(t, f.dir, name)
	d.Can = append(d.Can, csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS)
	d.Usage = usage
	d.Volume(t, "vol-1", map[string]string{"hello.txt": "hello"})
	f.serve(d)
	return f, d
}

func TestFiguresOfAVolume(t *testing.T) {
	t.Parallel()
	f, d := newMeasured(t, nil)
	_, err := f.Stats(t.Context(), "one", "claim")
	require.ErrorContains(t, err, `claim "claim" of the pod is not published`)
	path := f.mount(f.request("one"))
	s, err := f.Stats(t.Context(), "one", "claim")
	require.NoError(t, err)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(filepath.Join(d.Data, "vol-1"), &fs))
	require.Equal(t, fs.Blocks*uint64(fs.Bsize), *s.CapacityBytes)
	require.Positive(t, *s.AvailableBytes)
	require.Positive(t, *s.UsedBytes)
	require.Equal(t, fs.Files, *s.Inodes)
	require.Equal(t, *s.Inodes, *s.InodesFree+*s.InodesUsed)
	require.False(t, s.Time.IsZero())
	asked := d.Calls(csitest.Stats)
	require.Len(t, asked, 1)
	require.Equal(t, "vol-1", asked[0].Measured.VolumeId)
	require.Equal(t, path, asked[0].Measured.VolumePath)

	d.Fail(csitest.Stats, status.Error(codes.Internal, "the backend is away"))
	_, err = f.Stats(t.Context(), "one", "claim")
	require.ErrorContains(t, err, "CSI driver disk.example.com: NodeGetVolumeStats: Internal: the backend is away")
	require.NoError(t, f.Unmount(t.Context(), "one"))
	f.clean()
}

func TestFiguresThatAreNone(t *testing.T) {
	t.Parallel()
	f, d := newDriver(t)
	f.mount(f.request("one"))
	_, err := f.Stats(t.Context(), "one", "claim")
	require.ErrorIs(t, err, ErrNoStats)
	require.Empty(t, d.Calls(csitest.Stats), "it can't: it is not asked")
	require.NoError(t, f.Unmount(t.Context(), "one"))

	f, _ = newMeasured(t, []*csipb.VolumeUsage{{Unit: csipb.VolumeUsage_BYTES, Total: 100, Available: -1}, {Total: 7}})
	f.mount(f.request("one"))
	s, err := f.Stats(t.Context(), "one", "claim")
	require.NoError(t, err)
	require.Equal(t, ptr.To[uint64](100), s.CapacityBytes)
	require.Equal(t, ptr.To[uint64](0), s.AvailableBytes, "none has 2^64-1 bytes")
	require.Nil(t, s.Inodes, "it does not count them")
	require.NoError(t, f.Unmount(t.Context(), "one"))

	f, _ = newMeasured(t, []*csipb.VolumeUsage{})
	f.mount(f.request("one"))
	_, err = f.Stats(t.Context(), "one", "claim")
	require.ErrorContains(t, err, "its answer has no figures")
	require.NoError(t, f.Unmount(t.Context(), "one"))
}

// A call that hangs keeps nobody from mounting the volume or giving it back.
func TestFiguresHoldUpNothing(t *testing.T) {
	t.Parallel()
	f, d := newMeasured(t, nil)
	f.mount(f.request("one"))
	release := d.Hold(csitest.Stats)
	answered := make(chan error, 1)
	go func() {
		_, err := f.Stats(t.Context(), "one", "claim")
		answered <- err
	}()
	require.Eventually(t, func() bool { return len(d.Calls(csitest.Stats)) == 1 }, patience, wink)
	f.mount(f.request("two"))
	require.NoError(t, f.Unmount(t.Context(), "one"))
	require.NoError(t, f.Unmount(t.Context(), "two"))
	f.clean()
	require.Empty(t, answered, "it hangs still")
	release()
	require.Eventually(t, func() bool { return len(answered) == 1 }, patience, wink)
}
