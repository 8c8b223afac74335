package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/ainode/ainode/api/contract"
)

// Claims are the claims that pods name and the volumes that those are bound to, asked
// for one by one: a node may read no others.
type Claims interface {
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// isClaim reports whether the volume is mounted from somewhere else.
func isClaim(v *corev1.Volume) bool { return v.PersistentVolumeClaim != nil }

// claimed is the volume that the pod's claim is bound to. What is wrong is told in the
// words of the kubelet (pkg/kubelet/volumemanager/populator), with what to do.
func (m *Manager) claimed(ctx context.Context, pod *corev1.Pod, name string) (*corev1.PersistentVolume, error) {
	if m.o.Claims == nil {
		return nil, errors.New("this agent reads no claims")
	}
	claim, err := m.o.Claims.Claim(ctx, pod.Namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("persistentvolumeclaim %q not found", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read persistentvolumeclaim %q: %w", name, err)
	}
	if claim.DeletionTimestamp != nil {
		return nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", name)
	}
	if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
		return nil, fmt.Errorf("persistentvolumeclaim %q is not bound yet (kubectl describe pvc %s says why); the pod starts when it is", name, name)
	}
	volume, err := m.o.Claims.PersistentVolume(ctx, claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("persistentvolume %q, which persistentvolumeclaim %q is bound to, not found", claim.Spec.VolumeName, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read persistentvolume %q: %w", claim.Spec.VolumeName, err)
	}
	// A name is not enough: the claim may have been made anew.
	if ref := volume.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return nil, fmt.Errorf("persistentvolume %q is not bound to persistentvolumeclaim %q, though that says so", volume.Name, name)
	}
	return volume, m.mountable(volume)
}

// mountable says whether this AI node can mount the volume: a pod that names its node
// has passed no scheduler, which looks at the volume's node affinity too. A device is
// given to no container: the machine's are refused, whoever attached them.
func (m *Manager) mountable(volume *corev1.PersistentVolume) error {
	if volume.Spec.CSI == nil {
		return fmt.Errorf("persistentvolume %q is no CSI volume: AI nodes mount those of driver %s and of CSI drivers that run on the machine", volume.Name, contract.OSSDriver)
	}
	if mode := volume.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return fmt.Errorf("persistentvolume %q has volumeMode %s: AI nodes mount volumes of mode Filesystem", volume.Name, *mode)
	}
	if err := storagehelpers.CheckNodeAffinity(volume, m.o.Node().Labels); err != nil {
		return fmt.Errorf("persistentvolume %q may not be used on this node (spec.nodeAffinity): %w", volume.Name, err)
	}
	return nil
}

// mayWrite reports whether anything may write to the volume.
func mayWrite(pod *corev1.Pod, v *corev1.Volume, volume *corev1.PersistentVolume) bool {
	writes := func(mode corev1.PersistentVolumeAccessMode) bool { return mode != corev1.ReadOnlyMany }
	return podWrites(pod, v) && !volume.Spec.CSI.ReadOnly && slices.ContainsFunc(volume.Spec.AccessModes, writes)
}

// podWrites reports whether the pod asks to write: its mount is its own, so that what
// none of its containers may write, the helper need not either.
func podWrites(pod *corev1.Pod, v *corev1.Volume) bool {
	if v.PersistentVolumeClaim.ReadOnly {
		return false
	}
	writes := func(mount corev1.VolumeMount) bool { return mount.Name == v.Name && !mount.ReadOnly }
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if slices.ContainsFunc(list[i].VolumeMounts, writes) {
				return true
			}
		}
	}
	return false
}
