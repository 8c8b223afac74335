package csi

import (
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"
)

func TestAccessModes(t *testing.T) {
	t.Parallel()
	apart := capabilities{csipb.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER: true}
	for mode, want := range map[corev1.PersistentVolumeAccessMode][2]csipb.VolumeCapability_AccessMode_Mode{
		corev1.ReadWriteOnce:    {csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		corev1.ReadWriteOncePod: {csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER},
		corev1.ReadOnlyMany:     {csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY},
		corev1.ReadWriteMany:    {csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	} {
		v := volume()
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
		require.Equal(t, want[0], accessMode(v, nil), mode)
		require.Equal(t, want[1], accessMode(v, apart), mode)
	}
}

// Who sets the group: the driver if it can, nobody if the CSIDriver says so, else we.
func TestGroupPolicies(t *testing.T) {
	t.Parallel()
	object := func(p storagev1.FSGroupPolicy) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{FSGroupPolicy: &p}}
	}
	many, plain := volume(), volume()
	many.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	plain.Spec.CSI.FSType = ""
	require.True(t, ownedByGroup(volume(), nil, false))
	require.False(t, ownedByGroup(volume(), nil, true))
	require.False(t, ownedByGroup(many, nil, false))
	require.False(t, ownedByGroup(plain, nil, false))
	require.False(t, ownedByGroup(volume(), object(storagev1.NoneFSGroupPolicy), false))
	require.True(t, ownedByGroup(many, object(storagev1.FileFSGroupPolicy), false))
	mounts := capabilities{csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP: true}
	require.Equal(t, "2000", capability(volume(), mounts, ptr.To[int64](2000)).GetMount().VolumeMountGroup)
	require.Empty(t, capability(volume(), nil, ptr.To[int64](2000)).GetMount().VolumeMountGroup)
}

func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	text := redact("login of joe with s3cret-long and s3cret failed", map[string]string{"a": "s3cret", "b": "s3cret-long\n", "c": "o"})
	require.Equal(t, "login of joe with … and … failed", text)
	require.NotContains(t, strings.ReplaceAll(text, "…", ""), "s3cret")
	text = redact("bad line MIIEowIB near ab of joe", map[string]string{"key": "-----BEGIN-----\r\nMIIEowIB\r\nab\r\n"})
	require.Equal(t, "bad line … near ab of joe", text)
}
