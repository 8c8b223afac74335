package usage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// measureEvery is how long a walk's result is good for, the kubelet's
// volumeStatsAggPeriod; one that took long is good for restShare times as long.
const (
	measureEvery = time.Minute
	restShare    = 10
)

// disk is what a pod's folders take up.
type disk struct {
	at      time.Time
	took    time.Duration
	logs    map[string]size // by container
	volumes map[string]size
}

// size is bytes on the disk, and inodes.
type size struct{ bytes, inodes uint64 }

func (s *size) add(o size) { s.bytes += o.bytes; s.inodes += o.inodes }

func (s size) stats(at time.Time) stats.FsStats {
	return stats.FsStats{Time: metav1.NewTime(at), UsedBytes: &s.bytes, InodesUsed: &s.inodes}
}

// disk walks the pod's folders, unless that was done lately.
func (m *Meter) disk(ctx context.Context, pod *corev1.Pod) (*disk, error) {
	m.mu.Lock()
	known := m.disks[pod.UID]
	m.mu.Unlock()
	now := m.o.Clock.Now()
	if known != nil && now.Sub(known.at) < max(measureEvery, restShare*known.took) {
		return known, nil
	}
	d := &disk{at: now, logs: map[string]size{}, volumes: map[string]size{}}
	folders, err := os.ReadDir(m.o.LogDirectory(pod))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("measure the logs of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	for _, f := range folders {
		if d.logs[f.Name()], err = walk(ctx, filepath.Join(m.o.LogDirectory(pod), f.Name())); err != nil {
			return nil, err
		}
	}
	for name, folder := range m.o.Volumes(pod) {
		if d.volumes[name], err = walk(ctx, folder); err != nil {
			return nil, err
		}
	}
	d.took = m.o.Clock.Since(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks[pod.UID] = d
	return d, nil
}

// forget drops the pods that are no more.
func (m *Meter) forget(pods map[string]*corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.disks, func(uid types.UID, _ *disk) bool { return pods[string(uid)] == nil })
}

// addTo completes the pod's figures. Ephemeral storage is logs, writable layers and
// volumes together.
func (d *disk) addTo(pod *stats.PodStats) {
	var total size
	for i := range pod.Containers {
		c := &pod.Containers[i]
		logs := d.logs[c.Name].stats(d.at)
		c.Logs = &logs
		if r := c.Rootfs; r != nil && r.UsedBytes != nil && r.InodesUsed != nil {
			total.add(size{*r.UsedBytes, *r.InodesUsed})
		}
	}
	for _, logs := range d.logs { // of containers too that have ended
		total.add(logs)
	}
	for name, v := range d.volumes {
		pod.VolumeStats = append(pod.VolumeStats, stats.VolumeStats{Name: name, FsStats: v.stats(d.at)})
		total.add(v)
	}
	ephemeral := total.stats(d.at)
	pod.EphemeralStorage = &ephemeral
}

// walk measures a folder as du does: what stays on the disk, each inode once. A pod
// may change it meanwhile: nothing that it makes there leads the walk out of the
// folder, or fails it.
func walk(ctx context.Context, folder string) (size, error) {
	var total size
	root, err := os.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return total, nil
	}
	if err != nil {
		return total, fmt.Errorf("measure: %w", err)
	}
	defer func() { _ = root.Close() }()
	type inode struct{ device, number uint64 }
	linked := map[inode]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // it has vanished, or can't be read: what can be seen counts
		}
		info, err := e.Info()
		if err != nil {
			return nil // it has vanished
		}
		s, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if at := (inode{s.Dev, s.Ino}); s.Nlink > 1 && !e.IsDir() {
			if linked[at] {
				return nil
			}
			linked[at] = true
		}
		const block = 512 // of st_blocks, whatever the file system's are
		total.add(size{uint64(s.Blocks) * block, 1})
		return nil
	})
	if err != nil {
		return size{}, fmt.Errorf("measure %q: %w", folder, err)
	}
	return total, nil
}
