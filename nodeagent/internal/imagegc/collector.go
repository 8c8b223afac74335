// Package imagegc removes images that nobody uses when the disk that holds them
// fills up, and knows which images there are, by the kubelet's rules
// (pkg/kubelet/images/image_gc_manager.go).
package imagegc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/ainode/ainode/nodeagent/internal/machine"
)

// minAge is how long an image must have been known to be removed, the kubelet's
// imageMinimumGCAge.
const minAge = 2 * time.Minute

// lookEvery is how often images and their users are listed, collectEvery how often
// the disk is measured.
const (
	lookEvery    = 30 * time.Second
	collectEvery = 5 * time.Minute
)

// Event reasons, as the kubelet names them.
const (
	reasonGCFailed    = "ImageGCFailed"
	reasonFreeFailed  = "FreeDiskSpaceFailed"
	reasonInvalidDisk = "InvalidDiskCapacity"
)

// Runtime is what is used of the container runtime (CRI).
type Runtime interface {
	ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
}

// Options of a Collector; all but Present are required.
type Options struct {
	Runtime Runtime
	// Disk measures the file system that holds the images.
	Disk func(ctx context.Context) (machine.Disk, error)
	// From High per cent of the disk on images are removed until Low is reached; a
	// High of 100 removes none.
	High, Low int
	// Present is told the ids of all images that are on the machine, and since when
	// the list holds: of what came later it says nothing.
	Present  func(ids map[string]bool, since time.Time)
	Recorder record.EventRecorder
	// Node is what events are about.
	Node  func() *corev1.ObjectReference
	Clock clock.WithTicker
}

// Collector removes images. It is safe for concurrent use.
type Collector struct {
	o Options
	// collecting is held while images are removed.
	collecting sync.Mutex

	mu     sync.Mutex
	known  map[string]*known
	listed []*runtimeapi.Image
	failed bool
}

// known is what is remembered of an image.
type known struct {
	// seen is when it was found first, used when it was seen in use last.
	seen, used time.Time
	inUse      bool
	pinned     bool
	size       uint64
}

// New makes a Collector.
func New(o Options) *Collector {
	if o.Present == nil {
		o.Present = func(map[string]bool, time.Time) {}
	}
	return &Collector{o: o, known: map[string]*known{}}
}

// Run looks after the images until ctx ends: two lists of the runtime each half
// minute, one measurement of the disk each five minutes.
func (c *Collector) Run(ctx context.Context) error {
	ticker := c.o.Clock.NewTicker(lookEvery)
	defer ticker.Stop()
	var collected time.Time
	for {
		if c.o.Clock.Since(collected) >= collectEvery {
			collected = c.o.Clock.Now()
			c.note(ctx, c.Collect(ctx))
		} else if err := c.look(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Images are not known")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// note tells of a failure that is not the first in a row.
func (c *Collector) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Images are not collected")
		if c.failed {
			c.o.Recorder.Event(c.o.Node(), corev1.EventTypeWarning, reasonGCFailed, err.Error())
		}
	}
	c.failed = err != nil
}

// Collect removes unused images if the disk is too full, those that have been idle
// for the longest first, until it is not.
func (c *Collector) Collect(ctx context.Context) error {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	if err := c.look(ctx); err != nil {
		return err
	}
	disk, err := c.o.Disk(ctx)
	if err != nil {
		return err
	}
	if disk.Capacity == 0 {
		err := errors.New("invalid capacity 0 on image filesystem")
		c.o.Recorder.Event(c.o.Node(), corev1.EventTypeWarning, reasonInvalidDisk, err.Error())
		return err
	}
	used := 100 - int(min(disk.Available, disk.Capacity)*100/disk.Capacity)
	if used < c.o.High || c.o.High >= 100 {
		return nil
	}
	wanted := disk.Capacity*int64(100-c.o.Low)/100 - disk.Available
	freed, err := c.free(ctx, wanted)
	if err != nil {
		return err
	}
	if freed < wanted {
		err := fmt.Errorf("too little space on the node's image filesystem: %d%% of %d MiB are used, and the images that nobody uses held only %d bytes of the %d to be freed. "+
			"Look at images in use, logs, volumes and what else is on that disk", used, disk.Capacity>>20, freed, wanted)
		c.o.Recorder.Event(c.o.Node(), corev1.EventTypeWarning, reasonFreeFailed, err.Error())
		return err
	}
	return nil
}

// RemoveUnused removes every image that may be removed.
func (c *Collector) RemoveUnused(ctx context.Context) error {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	if err := c.look(ctx); err != nil {
		return err
	}
	_, err := c.free(ctx, math.MaxInt64)
	return err
}

// free removes images until that many bytes are free, and returns how many are.
func (c *Collector) free(ctx context.Context, wanted int64) (freed int64, err error) {
	var failed []error
	for _, id := range c.order() {
		if freed >= wanted || ctx.Err() != nil {
			break
		}
		if err := c.o.Runtime.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: id}); err != nil {
			failed = append(failed, fmt.Errorf("remove image %q: %w", id, err))
			continue
		}
		c.mu.Lock()
		size := c.known[id].size
		delete(c.known, id)
		c.mu.Unlock()
		klog.FromContext(ctx).Info("An unused image was removed", "image", id, "bytes", size)
		freed += int64(size)
	}
	return freed, errors.Join(failed...)
}
