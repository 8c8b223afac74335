package eviction

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

func TestThresholds(t *testing.T) {
	t.Parallel()
	thresholds, err := Parse(Default)
	require.NoError(t, err)
	require.Len(t, thresholds, len(signals))
	enough := Readings{
		MemoryAvailable: {100 << 20, 1 << 40}, NodeFsAvailable: {10, 100}, NodeFsInodesFree: {5, 100},
		ImageFsAvailable: {15, 100}, ImageFsInodesFree: {5, 100}, PIDAvailable: {5, 100},
	}
	require.Empty(t, thresholds.Met(enough))
	short := Readings{}
	for s, r := range enough {
		short[s] = Reading{r.Available - 1, r.Capacity}
	}
	require.Equal(t, signals, thresholds.Met(short), "memory comes first")
	delete(short, MemoryAvailable)
	require.Equal(t, signals[1:], thresholds.Met(short), "what is not known is not met")

	none, err := Parse("memory.available<0%,nodefs.available<0")
	require.NoError(t, err)
	require.Empty(t, none.Met(Readings{MemoryAvailable: {0, 100}, NodeFsAvailable: {0, 100}}))
	none, err = Parse("")
	require.NoError(t, err)
	require.Empty(t, none)
	for _, wrong := range []string{"memory", "memory.available<x", "memory.available<100%", "disk<1", "pid.available<-1", "pid.available<1,pid.available<2"} {
		_, err := Parse(wrong)
		require.ErrorContains(t, err, "eviction threshold", wrong)
	}
}

func TestFloorOfADisk(t *testing.T) {
	t.Parallel()
	own, err := machine.DiskOf(t.TempDir())
	require.NoError(t, err)
	own.Capacity = 1000
	elsewhere := machine.Disk{Capacity: 1000, Device: own.Device + 1}
	images, unknown := elsewhere, error(nil)
	m := Machine{NodeFs: t.TempDir(), ImageFs: func(context.Context) (machine.Disk, error) { return images, unknown }}
	floor := func(text string, disk machine.Disk) (int64, Signal) {
		thresholds, err := Parse(text)
		require.NoError(t, err)
		return m.Floor(t.Context(), thresholds, disk)
	}
	is := func(bytes int64, by Signal, text string, disk machine.Disk) {
		t.Helper()
		got, signal := floor(text, disk)
		require.Equal(t, bytes, got)
		require.Equal(t, by, signal)
	}
	is(100, NodeFsAvailable, Default, own)
	is(150, ImageFsAvailable, Default, elsewhere)
	is(0, "", Default, machine.Disk{Capacity: 1000, Device: own.Device + 2})
	is(0, "", "", own)
	is(0, "", "nodefs.inodesFree<5%", own)
	images.Device = own.Device
	is(150, ImageFsAvailable, Default, own)
	is(300, NodeFsAvailable, "nodefs.available<300,imagefs.available<15%", own)
	images, unknown = machine.Disk{}, errors.New("the runtime is silent")
	is(150, ImageFsAvailable, Default, own)
	limit, err := Parse(Default)
	require.NoError(t, err)
	require.Empty(t, limit.Met(Readings{NodeFsAvailable: {100, 1000}}), "what is left at the floor is no pressure")
	require.NotEmpty(t, limit.Met(Readings{NodeFsAvailable: {99, 1000}}))
}

func TestTheMachineIsRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for path, text := range map[string]string{
		"proc/meminfo": "MemTotal:  2048 kB\nMemAvailable:  1024 kB\n", "proc/loadavg": "0.1 0.2 0.3 2/300 999\n",
		"proc/sys/kernel/pid_max": "4000\n", "proc/sys/kernel/threads-max": "1000\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o600))
	}
	m := Machine{Root: root, NodeFs: root, ImageFs: func(context.Context) (machine.Disk, error) {
		return machine.Disk{Capacity: 100, Available: 7, Inodes: 50, InodesFree: 3}, nil
	}}
	r := m.Read(t.Context())
	require.Equal(t, Reading{1 << 20, 2 << 20}, r[MemoryAvailable])
	require.Equal(t, Reading{700, 1000}, r[PIDAvailable])
	require.Equal(t, Reading{7, 100}, r[ImageFsAvailable])
	require.Equal(t, Reading{3, 50}, r[ImageFsInodesFree])
	require.Positive(t, r[NodeFsAvailable].Available)

	m = Machine{Root: filepath.Join(root, "no"), NodeFs: filepath.Join(root, "no"), ImageFs: func(context.Context) (machine.Disk, error) {
		return machine.Disk{}, errors.New("the runtime is away")
	}}
	require.Empty(t, m.Read(t.Context()))
}

func TestPressureIsToldForAWhile(t *testing.T) {
	t.Parallel()
	clock := testclock.NewFakePassiveClock(start)
	thresholds, err := Parse(Default)
	require.NoError(t, err)
	readings := Readings{MemoryAvailable: {1, 100}}
	g := NewGauge(func(context.Context) Readings { return readings }, thresholds, clock)
	require.Equal(t, []corev1.NodeConditionType{corev1.NodeMemoryPressure}, g.Conditions(t.Context()), "the first asker has it read")

	readings = Readings{NodeFsAvailable: {1, 100}, ImageFsInodesFree: {1, 100}, PIDAvailable: {1, 100}}
	clock.SetTime(start.Add(transition - time.Second))
	g.observe(t.Context())
	require.Equal(t, []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure}, g.Conditions(t.Context()))
	readings = Readings{}
	clock.SetTime(start.Add(transition))
	require.Equal(t, []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodePIDPressure}, g.Conditions(t.Context()))
	clock.SetTime(start.Add(2 * transition))
	require.Empty(t, g.Conditions(t.Context()))
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	const memory, disk = corev1.NodeMemoryPressure, corev1.NodeDiskPressure
	asking := corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")},
	}}}}
	tolerating := corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}}
	for name, test := range map[string]struct {
		pressed []corev1.NodeConditionType
		spec    corev1.PodSpec
		message string
	}{
		"none":                           {},
		"memory, best effort":            {pressed: []corev1.NodeConditionType{memory}, message: "The node had condition: [MemoryPressure]. "},
		"memory, asks for some":          {pressed: []corev1.NodeConditionType{memory}, spec: asking},
		"memory, tolerates it":           {pressed: []corev1.NodeConditionType{memory}, spec: tolerating},
		"disk, asks for memory":          {pressed: []corev1.NodeConditionType{disk}, spec: asking, message: "The node had condition: [DiskPressure]. "},
		"both, tolerates memory's":       {pressed: []corev1.NodeConditionType{memory, disk}, spec: tolerating, message: "The node had condition: [DiskPressure MemoryPressure]. "},
		"both, critical":                 {pressed: []corev1.NodeConditionType{memory, disk}, spec: corev1.PodSpec{Priority: ptr.To[int32](systemCritical)}},
		"process ids, a pod of any kind": {pressed: []corev1.NodeConditionType{corev1.NodePIDPressure}, spec: asking, message: "The node had condition: [PIDPressure]. "},
	} {
		g := NewGauge(nil, nil, testclock.NewFakePassiveClock(start))
		for _, c := range test.pressed {
			g.last[c] = start
		}
		reason, message := g.Admit(&corev1.Pod{Spec: test.spec})
		require.Equal(t, test.message, message, name)
		require.Equal(t, message != "", reason == Reason, name)
	}
}
