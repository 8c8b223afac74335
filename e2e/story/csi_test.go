package story

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/ainode/ainode/api/contract"
)

// The volume of a CSI driver that has volumes attached, its claim, and a pod.
const (
	diskDriver = "disk.example.com"
	// The vendor's is there as in the vendor's clusters: without it the controller would
	// try to attach buckets too.
	driverObjects = `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: disk.example.com}
spec: {attachRequired: true, podInfoOnMount: true}
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: ossplugin.csi.alibabacloud.com}
spec: {attachRequired: false}
`
	diskObjects = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  storageClassName: disk
  claimRef: {namespace: default, name: disk}
  csi: {driver: disk.example.com, volumeHandle: vol-1, fsType: ext4, nodeStageSecretRef: {namespace: default, name: disk-keys}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: topology.disk.example.com/rack, operator: In, values: ["7"]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk, namespace: default}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
  storageClassName: disk
  volumeName: disk
---
apiVersion: v1
kind: Secret
metadata: {name: disk-keys, namespace: default}
stringData: {key: disk-secret}
---
apiVersion: v1
kind: Pod
metadata: {name: with-disk, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {alibabacloud.com/virtual-node: "true"}
  containers:
  - name: app
    image: demo.local/tools:v1
    command: [sh, -c, "echo written > /data/from-pod; exec sleep 2147483647"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: disk}
`
)

// testDisk has a CSI driver run on the machine, and a pod with a volume of it. What the
// driver's controllers do in the cluster, external-attacher, this test does by hand.
func (s *Story) testDisk(t *testing.T) {
	ctx := t.Context()
	_, err := s.Apply(ctx, driverObjects)
	require.NoError(t, err)
	_, err = s.quiet(ctx, "env", "CGO_ENABLED=0", "go", "build", "-C", s.Root, "-o", s.bin("csi-disk"), "./nodeagent/internal/csi/csitest/disk")
	require.NoError(t, err)
	_, err = s.devcluster(ctx, false, "exec", machine, "--", "mkdir", "-p", "/var/lib/disks/vol-1")
	require.NoError(t, err)
	_, err = s.devcluster(ctx, false, "start", "--name", "csi-disk", machine, "--", s.bin("csi-disk"), "/var/lib/kubelet", diskDriver, "/var/lib/disks")
	require.NoError(t, err)
	node := func() (n corev1.Node) { s.get(t, &n, "node", Node); return n }
	eventually(t, 2*time.Minute, "the driver is told in the CSINode", func() (bool, string) {
		drivers := s.must(t, "get", "csinode", Node, "-o", "jsonpath={.spec.drivers}")
		return strings.Contains(drivers, diskDriver), drivers
	})
	var csiNode storagev1.CSINode
	s.get(t, &csiNode, "csinode", Node)
	require.EqualValues(t, 16, *csiNode.Spec.Drivers[0].Allocatable.Count)
	require.JSONEq(t, `{"disk.example.com":"machine-of-disk.example.com"}`, node().Annotations["csi.volume.kubernetes.io/nodeid"])
	require.Equal(t, "7", node().Labels["topology.disk.example.com/rack"])

	_, err = s.Apply(ctx, diskObjects)
	require.NoError(t, err)
	// attachment is the name of the disk's VolumeAttachment, empty if there is none.
	attachment := func() string {
		var all storagev1.VolumeAttachmentList
		s.get(t, &all, "volumeattachments")
		for _, a := range all.Items {
			if a.Spec.Attacher == diskDriver {
				return a.Name
			}
		}
		return ""
	}
	eventually(t, 5*time.Minute, "the controller wants the volume attached", func() (bool, string) {
		return attachment() != "", s.must(t, "get", "events", "--field-selector", "involvedObject.name=with-disk")
	})
	eventually(t, 2*time.Minute, "the pod says what it waits for", func() (bool, string) {
		said := s.must(t, "get", "pod", "with-disk", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}")
		return strings.Contains(said, "does its external-attacher run in the cluster?"), said
	})
	require.Equal(t, []corev1.UniqueVolumeName{"kubernetes.io/csi/disk.example.com^vol-1"}, node().Status.VolumesInUse)
	s.must(t, "patch", "volumeattachment", attachment(), "--subresource=status", "--type=merge", "-p", `{"status":{"attached":true}}`)
	s.must(t, "wait", "--for=condition=Ready", "pod/with-disk", "--timeout=2m")
	file := filepath.Join("/var/lib/disks/vol-1", "from-pod")
	out, err := s.devcluster(ctx, false, "exec", machine, "--", "cat", file)
	require.NoError(t, err)
	require.Equal(t, "written\n", out)

	// The pod goes, what was mounted for it too, and only then may the controller detach.
	s.must(t, "delete", "pod", "with-disk", "--timeout=2m")
	eventually(t, 5*time.Minute, "nothing is mounted, and nothing in use", func() (bool, string) {
		mounts := s.machineMounts(t)
		return !strings.Contains(mounts, " /var/lib/kubelet/") && len(node().Status.VolumesInUse) == 0, mounts
	})
	eventually(t, 5*time.Minute, "the controller detaches the volume", func() (bool, string) {
		left := attachment()
		return left == "", left
	})
	_, err = s.devcluster(ctx, false, "stop", "--name", "csi-disk")
	require.NoError(t, err)
	eventually(t, 2*time.Minute, "the driver is told no more", func() (bool, string) {
		drivers := s.must(t, "get", "csinode", Node, "-o", "jsonpath={.spec.drivers[*].name}")
		return drivers == "", drivers
	})
	require.NotContains(t, s.must(t, "get", "events,pods,nodes,csinodes", "-A", "-o", "yaml"), "disk-secret")
	s.must(t, "delete", "pvc/disk", "pv/disk", "secret/disk-keys", "csidriver/"+diskDriver, "csidriver/"+contract.OSSDriver)
}
