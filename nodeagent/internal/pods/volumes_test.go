package pods

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

// An init container leaves links in a volume, by which the next one's subPath would
// lead into the machine: that one never starts, and says why.
func TestSubPathLeadsNowhere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	for name, test := range map[string]struct{ link, sub, expr, why string }{
		"absolute": {link: "/", sub: "out/etc", why: "path escapes"},
		"final":    {link: "/etc", sub: "out", why: "it is a link to an absolute path"},
		"up":       {link: "../../../../../../../../etc", sub: "out", why: "path escapes"},
		"proc":     {link: "/proc/self/root", sub: "out", why: "it is a link to an absolute path"},
		"expr":     {link: ".", expr: "$(WHERE)", why: "leads out of the volume"},
	} {
		pod := shell(name, obedient)
		pod.Spec.Volumes = []corev1.Volume{{Name: "data"}}
		pod.Spec.InitContainers = []corev1.Container{{
			Name: "thief", Image: critest.Busybox, ImagePullPolicy: corev1.PullIfNotPresent,
			Command:      []string{"busybox", "ln", "-s", test.link, "/data/out"},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}}
		main := &pod.Spec.Containers[0]
		main.Env = []corev1.EnvVar{{Name: "WHERE", Value: "out/../../../../etc"}}
		main.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/stolen", SubPath: test.sub, SubPathExpr: test.expr}}
		m.create(pod)
		m.await(name, "refused", func(p *corev1.Pod) bool {
			return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
				p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError" &&
				strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, test.why)
		})
		m.end(name)
	}
}

func TestReadOnlyToTheLast(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	pod := shell("app", obedient)
	pod.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "data", MountPath: "/data"},
		{Name: "data", MountPath: "/all", ReadOnly: true, RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)},
		{Name: "data", MountPath: "/perhaps", ReadOnly: true, RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyIfPossible)},
	}
	m.create(pod)
	running := m.awaitPhase("app", corev1.PodRunning)
	require.Equal(t, "no no", m.sh(pod, "touch /data/x && echo $(touch /all/y 2>/dev/null || echo no) $(touch /perhaps/y 2>/dev/null || echo no)"))
	mounts := running.Status.ContainerStatuses[0].VolumeMounts
	require.Nil(t, mounts[0].RecursiveReadOnly)
	require.Equal(t, ptr.To(corev1.RecursiveReadOnlyEnabled), mounts[1].RecursiveReadOnly)
	require.Equal(t, ptr.To(corev1.RecursiveReadOnlyDisabled), mounts[2].RecursiveReadOnly)
	m.end("app")

	shared := shell("shared", obedient)
	shared.Spec.Volumes = pod.Spec.Volumes
	shared.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data", MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)}}
	m.create(shared)
	m.await("shared", "refused", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, `mountPropagation "HostToContainer" is not supported on AI nodes`)
	})
	m.end("shared")
}
