package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// Request is a volume that a pod wants.
type Request struct {
	Pod *corev1.Pod
	// Claim is the claim's name, Volume what it is bound to.
	Claim  string
	Volume *corev1.PersistentVolume
	// ReadOnly: the pod is not to write.
	ReadOnly bool
	// FSGroup of the pod, nil if it has none; Own gives it the files at a path.
	FSGroup *int64
	Own     func(path string) error
	// Node is the Node as last seen. It must not block.
	Node    func() *corev1.Node
	Objects Objects
	// Again publishes a volume once more, if it is published still.
	Again bool
}

// StageError is that a volume can't be staged, for any pod.
type StageError struct{ err error }

func (e *StageError) Error() string { return e.err.Error() }
func (e *StageError) Unwrap() error { return e.err }

// mounting is one Mount under way.
type mounting struct {
	Request
	m      *Manager
	driver driver
	object *storagev1.CSIDriver // nil if there is none
	record *record
	can    capabilities
	// attachment is what the driver's controller said of the attached volume.
	attachment map[string]string
}

// Mount stages the volume if it is not, publishes it for the pod, and returns where.
// It is idempotent. What it has begun Unmount undoes, also if it failed.
func (m *Manager) Mount(ctx context.Context, r Request) (path string, err error) {
	source := r.Volume.Spec.CSI
	mt := &mounting{Request: r, m: m}
	if mt.driver, err = m.driver(source.Driver); err != nil {
		return "", err
	}
	if mt.object, err = driverObject(ctx, r.Objects, source.Driver); err != nil {
		return "", err
	}
	if err := persistent(mt.object); err != nil {
		return "", err
	}
	mt.record = &record{
		Name: r.Volume.Name, Handle: source.VolumeHandle, Driver: source.Driver, Node: m.o.Node, Claim: r.Claim,
		Mode: string(storagev1.VolumeLifecyclePersistent), dir: m.volumeDir(r.Pod.UID, r.Volume.Name),
	}
	if mt.object != nil && ptr.Deref(mt.object.Spec.RequiresRepublish, false) {
		mt.record.Republish = yes
	}
	if r.ReadOnly {
		mt.record.ReadOnly = yes
	}
	if AttachRequired(mt.object) {
		mt.record.AttachmentID = attachmentName(source.VolumeHandle, source.Driver, m.o.Node)
	}
	unlock, err := m.locks.lock(ctx, mt.record.key())
	if err != nil {
		return "", err
	}
	defer unlock()
	// Who gave up while it waited begins nothing: what it began nobody would undo.
	if err := ctx.Err(); err != nil {
		return "", err
	}
	there, err := mt.want()
	if err != nil || there != r.Again {
		return mt.record.target(), err
	}
	if mt.attachment, err = mt.attached(ctx); err != nil {
		return "", err
	}
	if mt.can, err = mt.driver.capabilities(ctx); err != nil {
		return "", err
	}
	staging := ""
	if mt.can[csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		if staging, err = mt.stage(ctx); err != nil {
			return "", &StageError{err}
		}
	}
	if there {
		return mt.record.target(), mt.publish(ctx, staging)
	}
	return mt.record.target(), mt.publishFirst(ctx, staging)
}

// driverObject is the CSIDriver; nil if the driver has none, which it need not.
func driverObject(ctx context.Context, objects Objects, name string) (*storagev1.CSIDriver, error) {
	object, err := objects.CSIDriver(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil, nil // that there is none is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read CSIDriver %q: %w", name, err)
	}
	return object, nil
}

// want remembers that the pod wants the volume, and reports whether it is published.
func (mt *mounting) want() (there bool, err error) {
	have, err := mt.m.readOver(mt.record.dir, mt.record.target())
	if err != nil {
		return false, err
	}
	wantedAgain := have != nil && have.Abandoned == yes
	if have != nil && have.Progress != wanted {
		if have.key() != mt.record.key() || have.Node != mt.record.Node {
			return false, fmt.Errorf("another volume is still published at %s: %s of %s", have.target(), have.Handle, have.Driver)
		}
		mt.record.Progress, mt.record.Boot = have.Progress, have.Boot
	}
	there = mt.record.is(mt.m.o.Boot)
	switch {
	case mt.Again && wantedAgain:
		return false, nil // it goes
	case there && wantedAgain: // before Run has come to it
		return true, mt.record.note(mt.record.Progress, mt.record.Boot)
	case there || mt.Again:
		return there, nil
	}
	if oneOnly(mt.Volume) {
		if err := mt.m.alone(mt.record); err != nil {
			return false, err
		}
	}
	return false, mt.record.note(mt.record.Progress, mt.record.Boot)
}

// alone is an error where another pod has the volume too.
func (m *Manager) alone(mine *record) error {
	all, err := m.ofPods("")
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.damaged != nil {
			if _, err := m.readOver(r.dir, r.target()); err != nil {
				return err
			}
		}
		if r.key() == mine.key() && r.dir != mine.dir {
			return errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
		}
	}
	return nil
}

// stage stages the volume, unless it is staged for another pod already.
func (mt *mounting) stage(ctx context.Context) (path string, err error) {
	source, boot := mt.Volume.Spec.CSI, mt.m.o.Boot
	s := &record{
		Handle: source.VolumeHandle, Driver: source.Driver, Node: mt.m.o.Node, AttachmentID: mt.record.AttachmentID,
		dir: mt.m.stagingDir(source.Driver, source.VolumeHandle),
	}
	have, err := mt.m.readOver(s.dir, s.staging())
	switch {
	case err != nil:
		return "", err
	case have != nil && have.Node != s.Node && have.ours():
		if err := mt.undoEarlier(ctx, have); err != nil {
			return "", err
		}
	case have != nil && have.Node != s.Node:
		return "", fmt.Errorf("the volume is staged by another kubelet of this machine at %s", have.staging())
	case have != nil && have.is(boot):
		return s.staging(), nil
	}
	secrets, err := mt.secret(ctx, "nodeStageSecretRef", source.NodeStageSecretRef)
	if err != nil {
		return "", err
	}
	if err := s.note(tried, boot); err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.staging(), 0o750); err != nil {
		return "", fmt.Errorf("make the folder that the volume is staged at: %w", err)
	}
	err = mt.driver.call(ctx, "NodeStageVolume", secrets, func(ctx context.Context, node csipb.NodeClient) error {
		_, err := node.NodeStageVolume(ctx, &csipb.NodeStageVolumeRequest{
			VolumeId: source.VolumeHandle, PublishContext: mt.attachment, StagingTargetPath: s.staging(),
			VolumeCapability: capability(mt.Volume, mt.can, mt.FSGroup), Secrets: secrets, VolumeContext: source.VolumeAttributes,
		})
		return err
	})
	if final(err) {
		return "", errors.Join(err, s.forget(s.staging()))
	}
	if err != nil {
		return "", err
	}
	return s.staging(), s.note(done, boot)
}

// undoEarlier unstages what was staged when the machine had another name: the driver may
// have been told of that, and of other secrets.
func (mt *mounting) undoEarlier(ctx context.Context, staged *record) error {
	all, err := mt.m.ofPods("")
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.key() == staged.key() && r.Node == staged.Node {
			return fmt.Errorf("the volume is still published at %s for a pod of node %s, which this machine was before; it is being taken away", r.target(), r.Node)
		}
	}
	return mt.m.undoStage(ctx, staged)
}

// publishFirst publishes the volume for the pod, and has its fsGroup own it.
func (mt *mounting) publishFirst(ctx context.Context, staging string) error {
	boot := mt.m.o.Boot
	if err := mt.record.note(tried, boot); err != nil {
		return err
	}
	if err := mt.publish(ctx, staging); final(err) {
		if busy := os.Remove(mt.record.target()); busy != nil && !errors.Is(busy, fs.ErrNotExist) {
			return err // mounted by an earlier call that was given up: the driver is to undo it
		}
		return errors.Join(err, mt.record.note(wanted, ""))
	} else if err != nil {
		return err
	}
	if mt.FSGroup != nil && !mt.can[csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] && ownedByGroup(mt.Volume, mt.object, mt.ReadOnly) {
		if err := mt.Own(mt.record.target()); err != nil {
			return err
		}
	}
	return mt.record.note(done, boot)
}

func (mt *mounting) publish(ctx context.Context, staging string) error {
	source := mt.Volume.Spec.CSI
	secrets, err := mt.secret(ctx, "nodePublishSecretRef", source.NodePublishSecretRef)
	if err != nil {
		return err
	}
	attributes := merged(source.VolumeAttributes, podInfo(mt.Pod, mt.object))
	tokens, bare, err := mt.tokens(ctx)
	if err != nil {
		return err
	}
	if mt.object != nil && ptr.Deref(mt.object.Spec.ServiceAccountTokenInSecrets, false) {
		secrets = merged(secrets, tokens)
	} else {
		attributes = merged(attributes, tokens)
	}
	return mt.driver.call(ctx, "NodePublishVolume", merged(secrets, bare), func(ctx context.Context, node csipb.NodeClient) error {
		_, err := node.NodePublishVolume(ctx, &csipb.NodePublishVolumeRequest{
			VolumeId: source.VolumeHandle, PublishContext: mt.attachment, StagingTargetPath: staging, TargetPath: mt.record.target(),
			VolumeCapability: capability(mt.Volume, mt.can, mt.FSGroup), Readonly: mt.ReadOnly, Secrets: secrets, VolumeContext: attributes,
		})
		return err
	})
}
