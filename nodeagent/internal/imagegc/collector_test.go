package imagegc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// host has images of ten bytes on a disk of a hundred.
type host struct {
	images     []*runtimeapi.Image
	containers []*runtimeapi.Container
	others     int64 // bytes of the disk that no image holds
	removed    []string
	stuck      bool
	clock      *testclock.FakeClock
	events     *record.FakeRecorder
	*Collector
}

func newHost(images ...string) *host {
	h := &host{clock: testclock.NewFakeClock(time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)), events: record.NewFakeRecorder(10)}
	for _, id := range images {
		h.pull(id)
	}
	h.Collector = New(Options{
		Runtime: h, Recorder: h.events, Clock: h.clock, High: 85, Low: 80,
		Node: func() *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Node", Name: "ai-1"} },
		Disk: func(context.Context) (machine.Disk, error) {
			return machine.Disk{Capacity: 100, Available: 100 - h.others - 10*int64(len(h.images))}, nil
		},
	})
	return h
}

func (h *host) pull(id string) {
	h.images = append(h.images, &runtimeapi.Image{Id: id, RepoTags: []string{"example.com/" + id + ":1"}, Size: 10})
}

func (h *host) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return append([]*runtimeapi.Image(nil), h.images...), nil
}

func (h *host) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return h.containers, nil
}

func (h *host) RemoveImage(_ context.Context, image *runtimeapi.ImageSpec) error {
	if h.stuck {
		return errors.New("read-only file system")
	}
	for i, have := range h.images {
		if have.Id == image.Image {
			h.images = append(h.images[:i:i], h.images[i+1:]...)
			h.removed = append(h.removed, image.Image)
			return nil
		}
	}
	return errors.New("no such image")
}

// use makes the images the only ones in use, and has that seen.
func (h *host) use(t *testing.T, ids ...string) {
	t.Helper()
	h.containers = nil
	for _, id := range ids {
		h.containers = append(h.containers, &runtimeapi.Container{ImageId: id, State: runtimeapi.ContainerState_CONTAINER_EXITED})
	}
	h.clock.Step(time.Minute)
	require.NoError(t, h.look(t.Context()))
}

func TestTheLongestIdleGoFirst(t *testing.T) {
	t.Parallel()
	h := newHost("a", "b", "c", "d")
	h.use(t, "a", "b")
	h.use(t, "a", "c")
	h.use(t, "d")
	h.others = 50 // 90 used: 10 to be freed
	require.NoError(t, h.Collect(t.Context()))
	require.Equal(t, []string{"b"}, h.removed, "c and a were used later, d is in use")
	h.others = 59 // 89: 9 to be freed
	require.NoError(t, h.Collect(t.Context()))
	require.Equal(t, []string{"b", "a"}, h.removed)
	require.Empty(t, h.events.Events)
}

func TestBelowTheThresholdNothingGoes(t *testing.T) {
	t.Parallel()
	h := newHost("a", "b")
	h.use(t)
	h.use(t)
	h.others = 64
	require.NoError(t, h.Collect(t.Context()))
	h.others, h.o.High = 80, 100 // turned off
	require.NoError(t, h.Collect(t.Context()))
	require.Empty(t, h.removed)
}

func TestWhatIsNeededStays(t *testing.T) {
	t.Parallel()
	h := newHost("pinned", "used", "named")
	h.images[0].Pinned = true
	h.containers = []*runtimeapi.Container{
		{ImageId: "used"},
		{Image: &runtimeapi.ImageSpec{Image: "example.com/named:1"}}, // as older runtimes say it
	}
	require.NoError(t, h.look(t.Context()))
	h.clock.Step(time.Hour)
	h.pull("new")
	h.others = 60
	for range 2 {
		h.note(t.Context(), h.Collect(t.Context()))
	}
	require.Empty(t, h.removed)
	require.Contains(t, <-h.events.Events, "FreeDiskSpaceFailed")
	require.Contains(t, <-h.events.Events, "FreeDiskSpaceFailed")
	require.Contains(t, <-h.events.Events, "ImageGCFailed", "the first failure in a row is not told")

	h.clock.Step(minAge)
	h.others = 50 // ten bytes less: what the one image holds is enough
	require.NoError(t, h.Collect(t.Context()))
	require.Equal(t, []string{"new"}, h.removed)
}

func TestUnderPressureAllUnusedGo(t *testing.T) {
	t.Parallel()
	h := newHost("a", "b", "c")
	h.use(t, "b")
	h.use(t, "b")
	h.use(t, "b")
	require.NoError(t, h.RemoveUnused(t.Context()))
	require.Equal(t, []string{"a", "c"}, h.removed)
	h.stuck = true
	h.use(t)
	require.ErrorContains(t, h.RemoveUnused(t.Context()), "read-only")
}

func TestAnEmptyDiskIsAnError(t *testing.T) {
	t.Parallel()
	h := newHost()
	h.o.Disk = func(context.Context) (machine.Disk, error) { return machine.Disk{}, nil }
	require.ErrorContains(t, h.Collect(t.Context()), "invalid capacity")
	require.Contains(t, <-h.events.Events, "InvalidDiskCapacity")
}

func TestTheNodeShowsTheLargest(t *testing.T) {
	t.Parallel()
	h := newHost()
	for i := range mostImages + 10 {
		h.pull(fmt.Sprintf("%02d", i))
		h.images[i].Size = uint64(i)
		h.images[i].RepoDigests = []string{"d1", "d2", "d3", "d4", "d5"}
	}
	require.Empty(t, h.Images(), "not known yet")
	require.NoError(t, h.look(t.Context()))
	shown := h.Images()
	require.Len(t, shown, mostImages)
	require.EqualValues(t, mostImages+9, shown[0].SizeBytes)
	require.Equal(t, []string{"d1", "d2", "d3", "d4", "d5"}, shown[0].Names)
}
