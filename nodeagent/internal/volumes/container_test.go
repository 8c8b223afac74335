package volumes_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/mount-utils"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/crispec"
	"github.com/ainode/ainode/nodeagent/internal/objects"
	"github.com/ainode/ainode/nodeagent/internal/volumes"
)

// One pod with all that lowers its privileges and all kinds of volumes, in a
// container of a real runtime: what the pod says is what the container sees.
func TestContainerSeesWhatItsPodSays(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs containers; left out with -short")
	}
	c := critest.Start(t)
	client := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "settings"}, Data: map[string]string{"a.conf": "one", "COLOUR": "red"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "keys"}, Data: map[string][]byte{"token": []byte("s3cret")}},
	)
	reader := objects.Reader{Client: client}
	m, err := volumes.New(volumes.Options{Root: filepath.Join(t.TempDir(), "pods"), Objects: reader, Followed: objects.NewFollower(client), Mounter: mount.New(""), Boot: "one"})
	require.NoError(t, err)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "0d9a6b6e-3333", Labels: map[string]string{"app": "x"}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](1000), RunAsGroup: ptr.To[int64](3000), FSGroup: ptr.To[int64](2000),
				SupplementalGroups: []int64{4000}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: critest.Busybox, Command: []string{"sh", "-c", "echo started $(COLOUR); exec sleep 2147483647"}, WorkingDir: "/tmp",
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
					corev1.ResourceMemory: resource.MustParse("128Mi"), corev1.ResourceCPU: resource.MustParse("500m"),
				}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "shm", MountPath: "dev/shm"}, {Name: "config", MountPath: "/etc/config"}, {Name: "secret", MountPath: "/secret"},
					{Name: "config", MountPath: "/app.conf", SubPath: "a.conf"}, {Name: "disk", MountPath: "/data"}, {Name: "disk", MountPath: "/part", SubPath: "part"},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: "shm", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("96Mi"))}}},
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
				{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", DefaultMode: ptr.To[int32](0o400)}}},
				{Name: "disk"},
			},
		},
		Status: corev1.PodStatus{QOSClass: corev1.PodQOSGuaranteed},
	}
	ctx, main := t.Context(), &pod.Spec.Containers[0]
	t.Cleanup(func() { require.NoError(t, m.Teardown(context.Background(), pod.UID)) })
	mounted, err := m.Setup(ctx, pod)
	require.NoError(t, err)
	mounts, err := m.Mounts(pod, main, mounted)
	require.NoError(t, err)
	env, err := crispec.Env(ctx, pod, main, reader, crispec.Facts{})
	require.NoError(t, err)

	// Of this process alone: another run on the machine has its own.
	parent := fmt.Sprintf("/ainode-test-%d", os.Getpid())
	resolv, _ := crispec.DNS(pod, crispec.NodeResolv{Nameservers: []string{"192.0.2.53"}, Searches: []string{"lab.example"}})
	sandboxConfig, err := crispec.Sandbox(pod, crispec.SandboxOptions{
		LogDirectory: t.TempDir(), CgroupParent: parent, DNS: resolv,
	})
	require.NoError(t, err)
	sandbox, err := c.Runtime.RunPodSandbox(ctx, sandboxConfig, "")
	require.NoError(t, err)
	t.Cleanup(func() { // containers hold on to the volumes
		require.NoError(t, c.Runtime.StopPodSandbox(context.Background(), sandbox))
		require.NoError(t, c.Runtime.RemovePodSandbox(context.Background(), sandbox))
		require.NoError(t, cgroup.Remove(cgroup.Mount, parent))
	})
	config, err := crispec.Container(pod, main, crispec.ContainerOptions{ImageRef: critest.Busybox, Env: env, Mounts: mounts, CgroupParent: parent})
	require.NoError(t, err)
	id, err := c.Runtime.CreateContainer(ctx, sandbox, config, sandboxConfig)
	require.NoError(t, err)
	require.NoError(t, c.Runtime.StartContainer(ctx, id))
	run := func(command string) string {
		stdout, stderr, err := c.Runtime.ExecSync(ctx, id, []string{"busybox", "sh", "-c", command}, time.Minute)
		require.NoError(t, err, "%s: %s", command, stderr)
		return strings.TrimSpace(string(stdout))
	}

	require.Equal(t, "uid=1000 gid=3000 groups=2000,3000,4000", run("busybox id"))
	status := run("cat /proc/self/status")
	require.Contains(t, status, "NoNewPrivs:\t1")
	require.Contains(t, status, "CapEff:\t0000000000000000")
	require.Contains(t, status, "Seccomp:\t2")
	require.Equal(t, "/tmp", run("pwd"))
	require.Equal(t, "no", run("touch /x 2>/dev/null || echo no"), "the root is read-only")

	shm := run("busybox grep ' /dev/shm ' /proc/mounts")
	require.Len(t, strings.Split(shm, "\n"), 1, "the runtime's own /dev/shm is gone")
	require.Contains(t, shm, "size=98304k")
	run("touch /dev/shm/x /data/x /part/y && test -e /data/part/y")
	require.Equal(t, "2000", run("busybox stat -c %g /data/x"), "files in a volume belong to the fsGroup")
	require.Equal(t, "one", run("cat /etc/config/a.conf"))
	require.Equal(t, "one", run("cat /app.conf"))
	require.Equal(t, "no", run("touch /etc/config/new 2>/dev/null || echo no"))
	require.Equal(t, "s3cret", run("cat /secret/token"), "the fsGroup may read what only the owner could")
	require.Equal(t, "red", run("echo $COLOUR"))
	require.Equal(t, "p", run("echo $HOSTNAME"))
	require.Equal(t, "search lab.example\nnameserver 192.0.2.53", run("cat /etc/resolv.conf"))
}
