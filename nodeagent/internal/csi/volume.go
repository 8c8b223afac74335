package csi

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"
)

// What a driver is told of a pod (CSIDriver.spec.podInfoOnMount), and the tokens of its
// service account.
const (
	podName        = "csi.storage.k8s.io/pod.name"
	podNamespace   = "csi.storage.k8s.io/pod.namespace"
	podUID         = "csi.storage.k8s.io/pod.uid"
	serviceAccount = "csi.storage.k8s.io/serviceAccount.name"
	ephemeral      = "csi.storage.k8s.io/ephemeral"
	accountTokens  = "csi.storage.k8s.io/serviceAccount.tokens"
)

// accessMode is the CSI word for the first access mode of a volume, which is the one
// that counts (pkg/volume/csi). Drivers that tell several writers on one node apart
// (SINGLE_NODE_MULTI_WRITER) are told more.
func accessMode(v *corev1.PersistentVolume, can capabilities) csipb.VolumeCapability_AccessMode_Mode {
	mode := corev1.ReadWriteOnce
	if len(v.Spec.AccessModes) > 0 {
		mode = v.Spec.AccessModes[0]
	}
	apart := can[csipb.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
	switch {
	case mode == corev1.ReadOnlyMany:
		return csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case mode == corev1.ReadWriteMany:
		return csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case apart && mode == corev1.ReadWriteOnce:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	case apart && mode == corev1.ReadWriteOncePod:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case mode == corev1.ReadWriteOnce || mode == corev1.ReadWriteOncePod:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
	return csipb.VolumeCapability_AccessMode_UNKNOWN
}

// capability is how the volume is to be mounted. The fsGroup is the driver's matter
// where it can set it.
func capability(v *corev1.PersistentVolume, can capabilities, fsGroup *int64) *csipb.VolumeCapability {
	mount := &csipb.VolumeCapability_MountVolume{FsType: v.Spec.CSI.FSType, MountFlags: v.Spec.MountOptions}
	if fsGroup != nil && can[csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		mount.VolumeMountGroup = strconv.FormatInt(*fsGroup, 10)
	}
	return &csipb.VolumeCapability{
		AccessType: &csipb.VolumeCapability_Mount{Mount: mount},
		AccessMode: &csipb.VolumeCapability_AccessMode{Mode: accessMode(v, can)},
	}
}

// oneOnly reports whether one pod alone may have the volume: that is the only access
// mode that it has.
func oneOnly(v *corev1.PersistentVolume) bool {
	return slices.Equal(v.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod})
}

// ownedByGroup reports whether the pod's fsGroup is to own the files of the volume, by
// our doing (pkg/volume/csi, supportsFSGroup). Without a CSIDriver it is as if that
// said nothing.
func ownedByGroup(v *corev1.PersistentVolume, object *storagev1.CSIDriver, readOnly bool) bool {
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if object != nil {
		policy = ptr.Deref(object.Spec.FSGroupPolicy, policy)
	}
	switch {
	case readOnly:
		return false
	case policy == storagev1.FileFSGroupPolicy:
		return true
	case policy == storagev1.NoneFSGroupPolicy:
		return false
	}
	return v.Spec.CSI.FSType != "" && slices.ContainsFunc(v.Spec.AccessModes, func(mode corev1.PersistentVolumeAccessMode) bool {
		return mode == corev1.ReadWriteOnce || mode == corev1.ReadWriteOncePod
	})
}

// AttachRequired reports whether a controller has to attach a volume first: unless its
// CSIDriver, which may be nil, says that it has not to.
func AttachRequired(object *storagev1.CSIDriver) bool {
	return object == nil || ptr.Deref(object.Spec.AttachRequired, true)
}

// podInfo is what the driver wants to know of the pod.
func podInfo(pod *corev1.Pod, object *storagev1.CSIDriver) map[string]string {
	if object == nil || !ptr.Deref(object.Spec.PodInfoOnMount, false) {
		return nil
	}
	return map[string]string{
		podName: pod.Name, podNamespace: pod.Namespace, podUID: string(pod.UID), serviceAccount: pod.Spec.ServiceAccountName,
		ephemeral: strconv.FormatBool(false),
	}
}

// persistent is why the driver mounts no PersistentVolumes; nil if it does.
func persistent(object *storagev1.CSIDriver) error {
	if object == nil || len(object.Spec.VolumeLifecycleModes) == 0 || slices.Contains(object.Spec.VolumeLifecycleModes, storagev1.VolumeLifecyclePersistent) {
		return nil
	}
	return fmt.Errorf("CSIDriver %s has no volumeLifecycleMode Persistent: it mounts no PersistentVolumes", object.Name)
}

// attachmentName is the name of the VolumeAttachment that the attach-detach controller
// makes (pkg/volume/csi, getAttachmentName).
func attachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}
