package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/record"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ainode/ainode/nodeagent/internal/imagegc"
	"github.com/ainode/ainode/nodeagent/internal/images"
	"github.com/ainode/ainode/nodeagent/internal/logrotation"
	"github.com/ainode/ainode/nodeagent/internal/machine"
	"github.com/ainode/ainode/nodeagent/internal/pods"
)

// newLogRotator makes what keeps the logs of the manager's containers short.
func (t *tenant) newLogRotator(manager *pods.Manager) (*logrotation.Rotator, error) {
	size, err := resource.ParseQuantity(t.cfg.ContainerLogMaxSize)
	if err != nil {
		return nil, fmt.Errorf("read the size of logs: %w", err)
	}
	return logrotation.New(logrotation.Options{
		Runtime: t.runtime, Containers: manager.Containers, Clock: t.clock,
		MaxSize: size.Value(), MaxFiles: t.cfg.ContainerLogMaxFiles,
	})
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
func (t *tenant) newImageCollector(ctx context.Context, node func() *corev1.Node, puller *images.Puller, recorder record.EventRecorder) *imagegc.Collector {
	return imagegc.New(imagegc.Options{
		Runtime: imagesAndUsers{t.runtime.Images, t.runtime.RuntimeService}, Disk: t.imageDisk, Recorder: recorder, Clock: t.clock,
		Node:    func() *corev1.ObjectReference { return nodeRef(node()) },
		High:    t.cfg.ImageGCHighThreshold,
		Low:     t.cfg.ImageGCLowThreshold,
		Present: func(ids map[string]bool, since time.Time) { puller.Forget(ctx, ids, since) },
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

// nodeRef is what events about the node refer to.
func nodeRef(node *corev1.Node) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}
}
