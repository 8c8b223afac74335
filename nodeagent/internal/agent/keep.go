package agent

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/record"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/mount-utils"

	"github.com/ainode/ainode/nodeagent/internal/imagegc"
	"github.com/ainode/ainode/nodeagent/internal/logrotation"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/nodestatus"
	"github.com/ainode/ainode/nodeagent/internal/readcache"
	"github.com/ainode/ainode/nodeagent/internal/shutdown"
	"github.com/ainode/ainode/nodeagent/internal/usage"
)

// logindConfig is where systemd-logind reads more configuration from.
const logindConfig = "/etc/systemd/logind.conf.d"

// newShutdown makes what ends pods in time when the machine shuts down.
func (t *tenant) newShutdown(node func() *corev1.Node) *shutdown.Manager {
	return shutdown.New(shutdown.Options{
		Dial:  func(ctx context.Context) (*dbus.Conn, error) { return dbus.ConnectSystemBus(dbus.WithContext(ctx)) },
		Grace: t.cfg.ShutdownGracePeriod.Duration, Critical: t.cfg.ShutdownGracePeriodCriticalPods.Duration,
		ConfigDir: logindConfig, Clock: t.clock,
		Node: func() *corev1.ObjectReference { return nodeRef(node()) },
	})
}

// keepers are what looks after the machine beside its pods: logs, images, and what
// may run out. Each runs until its context ends.
func (t *tenant) keepers(ctx context.Context, node *nodestatus.Registrar, p *pressure, rooms *podRooms, meter *usage.Meter, recorder record.EventRecorder) ([]func(context.Context) error, error) {
	size, err := resource.ParseQuantity(t.cfg.ContainerLogMaxSize)
	if err != nil {
		return nil, fmt.Errorf("read the size of logs: %w", err)
	}
	logs, err := logrotation.New(logrotation.Options{
		Runtime: t.runtime, Containers: rooms.Containers, Clock: t.clock,
		MaxSize: size.Value(), MaxFiles: t.cfg.ContainerLogMaxFiles,
	})
	if err != nil {
		return nil, err
	}
	collector := t.newImageCollector(ctx, node.Node, rooms, recorder)
	changed := make(chan struct{}, 1)
	node.Images, node.Changed = collector.Images, changed
	evictions := t.newEvictions(p.gauge, rooms, meter, collector, node.Node, recorder)
	return []func(context.Context) error{
		logs.Run, collector.Run, evictions.Run, t.cache.Run,
		func(ctx context.Context) error { return p.down.Run(ctx, rooms, recorder) },
		func(ctx context.Context) error { return p.end.Run(ctx, rooms, recorder) },
		func(ctx context.Context) error { return either(ctx, changed, p.down.Changed(), p.end.Changed()) },
	}, nil
}

// imagesAndUsers are both of the runtime's services, as imagegc sees them.
type imagesAndUsers struct {
	criapi.ImageManagerService
	containers criapi.RuntimeService
}

func (r imagesAndUsers) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return r.containers.ListContainers(ctx, filter)
}

// newImageCollector makes what removes unused images.
func (t *tenant) newImageCollector(ctx context.Context, node func() *corev1.Node, rooms *podRooms, recorder record.EventRecorder) *imagegc.Collector {
	return imagegc.New(imagegc.Options{
		Runtime: imagesAndUsers{t.runtime.Images, t.runtime.RuntimeService}, Disk: t.imageDisk, Recorder: recorder, Clock: t.clock,
		High: t.cfg.ImageGCHighThreshold, Low: t.cfg.ImageGCLowThreshold,
		Node:    func() *corev1.ObjectReference { return nodeRef(node()) },
		Present: func(ids map[string]bool, since time.Time) { rooms.images.Forget(ctx, ids, since) },
	})
}

// imageDisk measures the disk that images and writable layers are on.
func (t *tenant) imageDisk(ctx context.Context) (machine.Disk, error) {
	folder, err := t.runtime.ImageFolder(ctx)
	if err != nil {
		return machine.Disk{}, err
	}
	return machine.DiskOf(folder)
}

// newCache makes what keeps the reads of buckets on disk. Without it pods have their
// buckets all the same.
func (t *tenant) newCache() (*readcache.Cache, error) {
	size, err := t.cfg.BucketCache()
	if err != nil {
		return nil, fmt.Errorf("read --bucket-cache-size: %w", err)
	}
	readings, thresholds, err := t.limits()
	if err != nil {
		return nil, err
	}
	return readcache.New(readcache.Options{
		Target: t.cfg.StateDir.BucketCache(), Size: size, Mounter: mount.New(""), Clock: t.clock,
		Image: filepath.Join(cmp.Or(t.cfg.BucketCacheDir, string(t.cfg.StateDir)), "ainode-bucket-cache"),
		Floor: func(ctx context.Context, disk machine.Disk) (int64, string) {
			bytes, signal := readings.Floor(ctx, thresholds, disk)
			return bytes, string(signal)
		},
	}), nil
}

// nodeRef is what events about the node refer to.
func nodeRef(node *corev1.Node) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}
}
