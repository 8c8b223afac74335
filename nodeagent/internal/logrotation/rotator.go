// Package logrotation keeps the logs of running containers from filling the disk,
// by the kubelet's rules: a log that has grown too large is renamed, the runtime
// begins a new one, and older ones are compressed and at last removed.
package logrotation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// every is the time between two passes, the kubelet's containerLogMonitorInterval.
const every = 10 * time.Second

// Runtime is what is used of the container runtime.
type Runtime interface {
	// ReopenContainerLog makes the runtime write to the container's log path anew.
	ReopenContainerLog(ctx context.Context, containerID string) error
}

// Options of a Rotator; all are required.
type Options struct {
	Runtime Runtime
	// Containers are those whose logs may grow. It is asked in each pass and must
	// not block.
	Containers func() []*runtimeapi.ContainerStatus
	// MaxSize is how large a log may grow, in bytes; what is written between two
	// passes comes on top.
	MaxSize int64
	// MaxFiles is how many files a container's log may have, the current one
	// included; at least 2.
	MaxFiles int
	Clock    clock.WithTicker
}

// Rotator rotates logs.
type Rotator struct{ o Options }

// New makes a Rotator.
func New(o Options) (*Rotator, error) {
	if o.MaxSize <= 0 || o.MaxFiles < 2 {
		return nil, fmt.Errorf("make the log rotator: want a size above 0 and at least 2 files, got %d and %d", o.MaxSize, o.MaxFiles)
	}
	return &Rotator{o: o}, nil
}

// Run looks at the logs every ten seconds until ctx ends. A pass costs one stat a
// running container and asks the runtime nothing.
func (r *Rotator) Run(ctx context.Context) error {
	ticker := r.o.Clock.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			r.pass(ctx)
		}
	}
}

// pass rotates every log that is due. What fails is tried in the next pass.
func (r *Rotator) pass(ctx context.Context) {
	for _, c := range r.o.Containers() {
		if ctx.Err() != nil {
			return
		}
		if c.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || c.GetLogPath() == "" {
			continue // nothing is written to it any more
		}
		if err := r.rotateIfDue(ctx, c.Id, c.LogPath); err != nil {
			klog.FromContext(ctx).Error(err, "A container's log is not rotated", "container", c.GetMetadata().GetName(), "id", c.Id)
		}
	}
}

func (r *Rotator) rotateIfDue(ctx context.Context, id, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// An agent was killed between renaming and reopening, or somebody has removed
		// the log: the runtime still writes to a file without that name.
		if err := r.o.Runtime.ReopenContainerLog(ctx, id); err != nil {
			return fmt.Errorf("reopen log %q that is not there: %w", path, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("measure log: %w", err)
	}
	if info.Size() < r.o.MaxSize {
		return nil
	}
	// Before the newest is added: one that is being followed was just renamed, and
	// is compressed only the next time.
	if err := tidy(path, r.o.MaxFiles-2); err != nil {
		return err
	}
	return r.renew(ctx, id, path)
}

// stamp is the end of a rotated log's name (time.Format), as the kubelet's: log
// collectors know it, and it sorts by age.
const stamp = "20060102-150405"

// renew renames the log and has the runtime begin a new one.
func (r *Rotator) renew(ctx context.Context, id, path string) error {
	rotated := path + "." + r.o.Clock.Now().Format(stamp)
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if err := r.o.Runtime.ReopenContainerLog(ctx, id); err != nil {
		err = fmt.Errorf("reopen log %q: %w", path, err)
		if back := os.Rename(rotated, path); back != nil {
			return errors.Join(err, fmt.Errorf("undo the rotation: %w", back))
		}
		return err
	}
	return nil
}
