package csi

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// tellWithin is how long the Node may take to tell that the volume is in use.
	tellWithin = 10 * time.Second
	// lookEvery is how often is looked meanwhile, at what is in memory.
	lookEvery = 20 * time.Millisecond
)

// attached is what the driver's controller said of the volume when it attached it to
// this machine; an error while it has not. First the Node has to tell that the volume
// is in use: from then on nobody detaches it (status.volumesInUse). A kubelet waits for
// both too (pkg/volume/util/operationexecutor, GenerateVerifyControllerAttachedVolumeFunc).
func (mt *mounting) attached(ctx context.Context) (map[string]string, error) {
	name := mt.record.AttachmentID
	if name == "" {
		return nil, nil
	}
	if err := mt.inUse(ctx); err != nil {
		return nil, err
	}
	attachment, err := mt.Objects.VolumeAttachment(ctx, name)
	switch {
	// A node is forbidden to look for one that is not there (Node authorizer).
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return nil, fmt.Errorf("it is not attached to this node yet: there is no VolumeAttachment %s, which the cluster's attach-detach controller makes "+
			"(a driver that needs none says attachRequired: false in its CSIDriver)", name)
	case err != nil:
		return nil, fmt.Errorf("read VolumeAttachment %s: %w", name, err)
	case attachment.DeletionTimestamp != nil:
		return nil, fmt.Errorf("it is being detached from this node (VolumeAttachment %s)", name)
	case attachment.Status.Attached:
		return attachment.Status.AttachmentMetadata, nil
	case attachment.Status.AttachError != nil:
		return nil, fmt.Errorf("it can't be attached to this node: %s (VolumeAttachment %s)", attachment.Status.AttachError.Message, name)
	}
	return nil, fmt.Errorf("it is not attached to this node yet: CSI driver %s has not answered VolumeAttachment %s (does its external-attacher run in the cluster?)", mt.driver.name, name)
}

// inUse waits until the Node tells that the volume is in use.
func (mt *mounting) inUse(ctx context.Context) error {
	name := uniqueName(mt.record.key())
	told := func() bool { return slices.Contains(mt.Node().Status.VolumesInUse, name) }
	if told() {
		return nil
	}
	poke(mt.m.changed)
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	for !told() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Node does not tell yet that the volume is in use (status.volumesInUse), and may not be attached before")
		case <-mt.m.o.Clock.After(lookEvery):
		}
	}
	return nil
}
