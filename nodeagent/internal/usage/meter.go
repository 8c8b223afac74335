// Package usage measures what the node's pods use of the machine, in the words of
// the kubelet's summary API: processors, memory and processes as the runtime reads
// them from the kernel, disk as the files are.
package usage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// Runtime is what is used of the container runtime (CRI).
type Runtime interface {
	ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error)
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	PodSandboxStats(ctx context.Context, sandboxID string) (*runtimeapi.PodSandboxStats, error)
}

// Options of a Meter; all are required.
type Options struct {
	Runtime Runtime
	// Pods are the pods of this node, Containers its containers, of one name the newest
	// first.
	Pods       func() []*corev1.Pod
	Containers func() []*runtimeapi.ContainerStatus
	// LogDirectory holds the pod's logs, a folder of each container's name.
	LogDirectory func(*corev1.Pod) string
	// Volumes are the folders of the pod's volumes that take up disk, by volume name.
	Volumes func(*corev1.Pod) map[string]string
	// Claims are what is known of how full the pod's persistent volumes are. It does not
	// block.
	Claims func(types.UID) []stats.VolumeStats
	// Node is what the node as a whole is measured by.
	Node  Node
	Clock clock.PassiveClock
}

// Meter measures. It is safe for concurrent use.
type Meter struct {
	o  Options
	mu sync.Mutex
	// disks remember what walking a pod's folders has found.
	disks map[types.UID]*disk
}

// New makes a Meter.
func New(o Options) *Meter { return &Meter{o: o, disks: map[types.UID]*disk{}} }

// Pods are the figures of the pods that run: one call of the runtime, as a rule.
func (m *Meter) Pods(ctx context.Context) ([]stats.PodStats, error) {
	started := map[string]metav1.Time{}
	for _, p := range m.o.Pods() {
		started[string(p.UID)] = ptr.Deref(p.Status.StartTime, p.CreationTimestamp)
	}
	ours := func(meta *runtimeapi.PodSandboxMetadata) bool {
		_, ours := started[meta.GetUid()]
		return ours
	}
	sandboxes, err := m.o.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		if sandboxes, err = m.oneByOne(ctx, ours, err); err != nil {
			return nil, err
		}
	}
	running := map[string]metav1.Time{}
	for _, c := range m.o.Containers() {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			running[c.Id] = at(c.StartedAt)
		}
	}
	all := []stats.PodStats{}
	for _, sandbox := range sandboxes {
		if meta := sandbox.GetAttributes().GetMetadata(); ours(meta) && sandbox.GetLinux() != nil {
			all = append(all, podStats(sandbox, started[meta.GetUid()], running))
		}
	}
	return all, nil
}

// oneByOne asks for the statistics of each sandbox. containerd answers for none if it
// can't answer for one, which may be somebody else's (made without a cgroup parent)
// or about to end.
func (m *Meter) oneByOne(ctx context.Context, ours func(*runtimeapi.PodSandboxMetadata) bool, cause error) ([]*runtimeapi.PodSandboxStats, error) {
	ready := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}
	sandboxes, err := m.o.Runtime.ListPodSandbox(ctx, ready)
	if err != nil {
		return nil, fmt.Errorf("read the runtime's statistics: %w", errors.Join(cause, err))
	}
	klog.FromContext(ctx).V(1).Info("Statistics are read pod by pod", "cause", cause)
	var all []*runtimeapi.PodSandboxStats
	for _, sandbox := range sandboxes {
		if !ours(sandbox.Metadata) {
			continue
		}
		if one, err := m.o.Runtime.PodSandboxStats(ctx, sandbox.Id); err == nil {
			all = append(all, one)
		}
	}
	return all, nil
}

// WithDisk adds what the pods of which is true take up of the disk, measured no
// longer than a minute ago, as on a kubelet: their folders are walked file by file.
func (m *Meter) WithDisk(ctx context.Context, which func(*corev1.Pod) bool) ([]stats.PodStats, error) {
	all, err := m.Pods(ctx)
	if err != nil {
		return nil, err
	}
	pods := map[string]*corev1.Pod{}
	for _, p := range m.o.Pods() {
		pods[string(p.UID)] = p
	}
	for i := range all {
		if pod := pods[all[i].PodRef.UID]; pod != nil && which(pod) {
			d, err := m.disk(ctx, pod)
			if err != nil {
				return nil, err
			}
			d.addTo(&all[i])
		}
	}
	m.forget(pods)
	return all, nil
}

// Volumes are what is known of how full the pods' persistent volumes are.
func (m *Meter) Volumes() []stats.VolumeStats {
	var all []stats.VolumeStats
	for _, p := range m.o.Pods() {
		all = append(all, m.o.Claims(p.UID)...)
	}
	return all
}

// podStats are a sandbox's figures; running says since when containers run, by id. One
// that does not run is left out, as on a kubelet: of one name there is one.
func podStats(sandbox *runtimeapi.PodSandboxStats, started metav1.Time, running map[string]metav1.Time) stats.PodStats {
	meta, linux := sandbox.GetAttributes().GetMetadata(), sandbox.GetLinux()
	pod := stats.PodStats{
		PodRef:    stats.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		StartTime: started,
		CPU:       cpuStats(linux.GetCpu()),
		Memory:    memoryStats(linux.GetMemory()),
	}
	if p := linux.GetProcess(); p != nil {
		pod.ProcessStats = &stats.ProcessStats{ProcessCount: value(p.ProcessCount)}
	}
	if n := linux.GetNetwork(); n != nil {
		pod.Network = networkStats(n)
	}
	for _, c := range linux.GetContainers() {
		since, runs := running[c.GetAttributes().GetId()]
		if !runs {
			continue
		}
		pod.Containers = append(pod.Containers, stats.ContainerStats{
			Name: c.GetAttributes().GetMetadata().GetName(), StartTime: since,
			CPU: cpuStats(c.GetCpu()), Memory: memoryStats(c.GetMemory()), Rootfs: layerStats(c.GetWritableLayer()),
		})
	}
	return pod
}

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return ptr.To(v.Value)
}

func at(nanoseconds int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanoseconds)) }

func cpuStats(c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	return &stats.CPUStats{Time: at(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memoryStats(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(m.Timestamp), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes),
		WorkingSetBytes: value(m.WorkingSetBytes), RSSBytes: value(m.RssBytes),
		PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
	}
}

func layerStats(l *runtimeapi.FilesystemUsage) *stats.FsStats {
	if l == nil {
		return nil
	}
	return &stats.FsStats{Time: at(l.Timestamp), UsedBytes: value(l.UsedBytes), InodesUsed: value(l.InodesUsed)}
}

func networkStats(n *runtimeapi.NetworkUsage) *stats.NetworkStats {
	one := func(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
		return stats.InterfaceStats{
			Name: i.GetName(), RxBytes: value(i.GetRxBytes()), RxErrors: value(i.GetRxErrors()),
			TxBytes: value(i.GetTxBytes()), TxErrors: value(i.GetTxErrors()),
		}
	}
	out := &stats.NetworkStats{Time: at(n.Timestamp)}
	if n.DefaultInterface != nil {
		out.InterfaceStats = one(n.DefaultInterface)
	}
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, one(i))
	}
	return out
}
