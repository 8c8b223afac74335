package eviction

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// Machine is where readings come from.
type Machine struct {
	// Root is the machine's file system, "/" outside tests.
	Root string
	// NodeFs is a folder on the disk with logs and volumes.
	NodeFs string
	// ImageFs measures the disk with images and writable layers.
	ImageFs func(ctx context.Context) (machine.Disk, error)
}

// Read reads all signals: three small files of /proc and two calls of statfs. What
// can't be read is left out, and told.
func (m Machine) Read(ctx context.Context) Readings {
	r := Readings{}
	logger := klog.FromContext(ctx)
	total, err := machine.Meminfo(m.Root, "MemTotal")
	if err == nil {
		var free int64
		// The kernel's own estimate. The kubelet has the root cgroup's working set
		// taken from the capacity, which is much the same.
		if free, err = machine.Meminfo(m.Root, "MemAvailable"); err == nil {
			r[MemoryAvailable] = Reading{Available: free, Capacity: total}
		}
	}
	if err != nil {
		logger.Error(err, "Pressure on memory is not known")
	}
	if disk, err := machine.DiskOf(m.NodeFs); err == nil {
		r.disk(disk, NodeFsAvailable, NodeFsInodesFree)
	} else {
		logger.Error(err, "Pressure on the disk is not known")
	}
	if disk, err := m.ImageFs(ctx); err == nil {
		r.disk(disk, ImageFsAvailable, ImageFsInodesFree)
	} else {
		logger.Error(err, "Pressure on the images' disk is not known")
	}
	if used, most, err := machine.PIDs(m.Root); err == nil {
		r[PIDAvailable] = Reading{Available: most - used, Capacity: most}
	} else {
		logger.Error(err, "Pressure on process ids is not known")
	}
	return r
}

// Floor is how much of a disk must stay free, in bytes, or pods are evicted for it, and the
// signal that asks for most; 0 and the empty one where none does. Images whose disk can't
// be asked for count as being on this one.
func (m Machine) Floor(ctx context.Context, thresholds Thresholds, disk machine.Disk) (bytes int64, by Signal) {
	var on []Signal
	own, err := machine.DiskOf(m.NodeFs)
	if err != nil || own.Device == disk.Device {
		on = append(on, NodeFsAvailable)
	}
	images, err := m.ImageFs(ctx)
	if err != nil || images.Device == disk.Device {
		on = append(on, ImageFsAvailable)
	}
	for _, s := range on {
		if kept := thresholds.Kept(s, disk.Capacity); kept > bytes {
			bytes, by = kept, s
		}
	}
	return bytes, by
}

func (r Readings) disk(d machine.Disk, space, files Signal) {
	if d.Capacity > 0 {
		r[space] = Reading{Available: d.Available, Capacity: d.Capacity}
	}
	if d.Inodes > 0 {
		r[files] = Reading{Available: d.InodesFree, Capacity: d.Inodes}
	}
}
