package usage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Node is where the figures of the node as a whole come from.
type Node struct {
	Name string
	// Root is the machine's file system, "/" outside tests.
	Root string
	// Folder is on the disk with logs and volumes; ImageDisk measures the one with
	// images and writable layers.
	Folder    string
	ImageDisk func(ctx context.Context) (machine.Disk, error)
	// Cgroup is the one around all pods.
	Cgroup string
}

// Summary are the figures of the node and its pods; disk says whether what pods take
// up of the disk is measured, and told how full their persistent volumes are. Swap is none of them: pods have none.
func (m *Meter) Summary(ctx context.Context, disk bool) (*stats.Summary, error) {
	pods, err := m.WithDisk(ctx, func(*corev1.Pod) bool { return disk })
	if err != nil {
		return nil, err
	}
	// Here alone: who evicts pods for what they have on the disk counts these not.
	for i := range pods {
		if disk {
			pods[i].VolumeStats = append(pods[i].VolumeStats, m.o.Claims(types.UID(pods[i].PodRef.UID))...)
		}
	}
	return &stats.Summary{Node: m.o.Node.stats(ctx, metav1.NewTime(m.o.Clock.Now())), Pods: pods}, nil
}

// stats are the node's figures; what can't be read is left out.
func (n Node) stats(ctx context.Context, now metav1.Time) stats.NodeStats {
	out := stats.NodeStats{NodeName: n.Name, CPU: n.cpu(now), Memory: n.memory(now), StartTime: n.booted()}
	if own, err := machine.DiskOf(n.Folder); err == nil {
		out.Fs = fsStats(own, now)
	}
	if images, err := n.ImageDisk(ctx); err == nil {
		out.Runtime = &stats.RuntimeStats{ImageFs: fsStats(images, now), ContainerFs: fsStats(images, now)}
	}
	if used, most, err := machine.PIDs(n.Root); err == nil {
		out.Rlimit = &stats.RlimitStats{Time: now, MaxPID: &most, NumOfRunningProcesses: &used}
	}
	figures, err := cgroup.Read(filepath.Join(n.Root, cgroup.Mount), n.Cgroup)
	if err != nil { // as before the first pod
		klog.FromContext(ctx).V(1).Info("What all pods use together is not known", "cause", err)
		return out
	}
	out.SystemContainers = []stats.ContainerStats{{
		Name: stats.SystemContainerPods, StartTime: out.StartTime,
		CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: ptr.To(uint64(figures.CPU))},
		Memory: &stats.MemoryStats{
			Time: now, UsageBytes: &figures.Memory, WorkingSetBytes: &figures.WorkingSet, RSSBytes: &figures.RSS,
			PageFaults: &figures.PageFaults, MajorPageFaults: &figures.MajorFaults,
		},
	}}
	return out
}

func fsStats(d machine.Disk, now metav1.Time) *stats.FsStats {
	positive := func(n int64) *uint64 { return ptr.To(uint64(max(n, 0))) }
	return &stats.FsStats{
		Time: now, CapacityBytes: positive(d.Capacity), AvailableBytes: positive(d.Available), UsedBytes: positive(d.Capacity - d.Available),
		Inodes: positive(d.Inodes), InodesFree: positive(d.InodesFree), InodesUsed: positive(d.Inodes - d.InodesFree),
	}
}

// cpu sums the busy columns of /proc/stat's first line; a tick is 10 ms on every
// Linux that Go runs on.
func (n Node) cpu(now metav1.Time) *stats.CPUStats {
	first, _, _ := strings.Cut(n.procStat(), "\n")
	fields := strings.Fields(first)
	var ticks uint64
	for i, f := range fields {
		count, err := strconv.ParseUint(f, 10, 64)
		// 4 and 5 are idle and iowait, 9 and 10 are guests, counted in user already.
		if err == nil && i > 0 && i < 9 && i != 4 && i != 5 {
			ticks += count
		}
	}
	if ticks == 0 {
		return nil
	}
	return &stats.CPUStats{Time: now, UsageCoreNanoSeconds: ptr.To(ticks * uint64(10*time.Millisecond))}
}

// booted is when the machine was started, the btime of /proc/stat.
func (n Node) booted() metav1.Time {
	for line := range strings.Lines(n.procStat()) {
		var seconds int64
		if _, err := fmt.Sscanf(line, "btime %d", &seconds); err == nil {
			return metav1.Unix(seconds, 0)
		}
	}
	return metav1.Time{}
}

func (n Node) procStat() string {
	raw, _ := os.ReadFile(filepath.Join(n.Root, "proc/stat")) // what can't be read is left out
	return string(raw)
}

func (n Node) memory(now metav1.Time) *stats.MemoryStats {
	total, err1 := machine.Meminfo(n.Root, "MemTotal")
	free, err2 := machine.Meminfo(n.Root, "MemAvailable")
	if err1 != nil || err2 != nil {
		return nil
	}
	used := uint64(max(total-free, 0))
	return &stats.MemoryStats{Time: now, AvailableBytes: ptr.To(uint64(free)), UsageBytes: &used, WorkingSetBytes: &used}
}
