package pods

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/nodeagent/internal/cgroup"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
	"github.com/ainode/ainode/nodeagent/internal/fuse/s3test"
)

// powerOff ends the agent and the machine under it at once, and takes away what only
// memory held: processes, mounts, cgroups, network namespaces, /run. What is on disk
// stays.
func (m *machine) powerOff() {
	m.t.Helper()
	var namespaces []string
	for _, pod := range m.manager.Active() {
		namespaces = append(namespaces, m.netns(pod.Name))
	}
	m.halt() // it writes nothing down as it ends
	m.c.PowerOff(m.t, m.cgroup, m.root)
	for _, ns := range namespaces {
		_ = unix.Unmount(ns, unix.MNT_DETACH)
		require.NoError(m.t, os.RemoveAll(ns))
	}
	require.NoError(m.t, cgroup.Remove(cgroup.Mount, m.cgroup))
}

// boot starts the machine and an agent on it.
func (m *machine) boot() {
	m.t.Helper()
	m.boots++
	m.c.Boot(m.t)
	m.start()
}

// netns is the pod's network namespace.
func (m *machine) netns(pod string) string {
	m.t.Helper()
	for _, ns := range m.sandboxInfo(pod).RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			return ns.Path
		}
	}
	m.t.Fatalf("pod %q has no network namespace of its own", pod)
	return ""
}

// files below a folder, folders not counted.
func files(t testing.TB, folder string) (all []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	}))
	return all
}

// The machine loses its power and boots. What a pod's end is, whose work goes on and
// what is kept is as on a node whose kubelet starts after a boot.
func TestTheMachineReboots(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gateway := s3test.Start(t)
	m.bucket(gateway, "models")
	m.bound()
	m.withRange()
	m.writeCards("GPU-0", "GPU-1")
	m.configMap("settings", map[string]string{"a": "one"})
	m.start()

	steady := asking(claiming("steady"), "main", 1)
	steady.Spec.Volumes = append(steady.Spec.Volumes, configMapVolume("config", "settings"), corev1.Volume{Name: "disk"},
		corev1.Volume{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}})
	main := &steady.Spec.Containers[0]
	main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: "config", MountPath: "/config"}, corev1.VolumeMount{Name: "disk", MountPath: "/disk"},
		corev1.VolumeMount{Name: "disk", MountPath: "/part", SubPath: "part"}, corev1.VolumeMount{Name: "memory", MountPath: "/memory"})
	ordered := shell("ordered", obedient)
	ordered.Spec.InitContainers = []corev1.Container{*ordered.Spec.Containers[0].DeepCopy(), *ordered.Spec.Containers[0].DeepCopy()}
	setup, sidecar := &ordered.Spec.InitContainers[0], &ordered.Spec.InitContainers[1]
	always := corev1.ContainerRestartPolicyAlways
	setup.Name, setup.Command = "setup", []string{"sh", "-c", "echo set up >> /shared/log"}
	sidecar.Name, sidecar.RestartPolicy = "sidecar", &always
	setup.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	ordered.Spec.Containers[0].VolumeMounts = setup.VolumeMounts
	ordered.Spec.Volumes = []corev1.Volume{{Name: "shared"}}
	job := asking(shell("job", obedient), "main", 1)
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	retried := shell("retried", obedient)
	retried.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	done := shell("done", "true")
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	running := []*corev1.Pod{steady, ordered, job, retried, shell("left", obedient), shell("gone", obedient)}
	for _, pod := range append(slices.Clone(running), done) {
		m.create(pod)
	}
	before := map[string]*corev1.Pod{"done": m.awaitPhase("done", corev1.PodSucceeded)}
	for _, pod := range running {
		before[pod.Name] = m.awaitPhase(pod.Name, corev1.PodRunning)
	}
	card := m.sh(steady, "echo $CARD_0$CARD_1")
	require.Equal(t, "one hello", m.sh(steady, "echo kept > /disk/x; echo kept > /part/y; echo lost > /memory/x; echo lost > /tmp/x; echo $(cat /config/a) $(cat /oss-data/hello.txt)"))
	require.Len(t, m.helpers(), 1)

	m.powerOff()
	require.Empty(t, m.helpers())
	m.configMap("settings", map[string]string{"a": "two"})
	m.delete("left", 30)
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	m.boot()

	for _, name := range []string{"steady", "ordered", "retried"} {
		after := m.await(name, "restarted", restarted(1))
		was, is := before[name].Status, after.Status
		require.Equal(t, corev1.PodRunning, is.Phase, name)
		require.Equal(t, was.StartTime, is.StartTime, name)
		require.NotEqual(t, was.ContainerStatuses[0].ContainerID, is.ContainerStatuses[0].ContainerID, name)
		ended := is.ContainerStatuses[0].LastTerminationState.Terminated
		require.NotNil(t, ended, name)
		require.Equal(t, was.ContainerStatuses[0].ContainerID, ended.ContainerID, name)
		require.Equal(t, "Unknown 255", fmt.Sprint(ended.Reason, " ", ended.ExitCode), name)
		require.Contains(t, m.leases(), is.PodIP, name)
	}
	require.Equal(t, "two hello kept kept", m.sh(steady, "echo $(cat /config/a) $(cat /oss-data/hello.txt) $(cat /disk/x) $(cat /part/y)"))
	require.Equal(t, "no no", m.sh(steady, "echo $(cat /memory/x 2>/dev/null || echo no) $(cat /tmp/x 2>/dev/null || echo no)"))
	require.Equal(t, card, m.sh(steady, "echo $CARD_0$CARD_1"), "its card is its own as before")
	require.Len(t, m.helpers(), 1)
	again := m.await("ordered", "initialized anew", func(p *corev1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return s[0].RestartCount == 1 && s[1].RestartCount == 1 && s[1].State.Running != nil
	})
	require.Equal(t, "set up\nset up", m.sh(again, "cat /shared/log"))

	ended := m.awaitPhase("job", corev1.PodFailed)
	s := ended.Status.ContainerStatuses[0]
	require.Equal(t, before["job"].Status.ContainerStatuses[0].ContainerID, s.ContainerID, "a Job makes another pod; this one is not run again")
	require.Equal(t, "Unknown 255", fmt.Sprint(s.State.Terminated.Reason, " ", s.State.Terminated.ExitCode))
	require.Zero(t, s.RestartCount)
	require.Equal(t, before["done"].Status, m.get("done").Status)
	require.Equal(t, 1, m.manager.GPUsInUse(), "the job's card is free")
	m.awaitGone("left")
	require.Eventually(t, func() bool { return !slices.Contains(m.names(), "gone") }, patience, wink)
	require.Contains(t, m.events.list(), "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.")

	m.leavesNothing("steady", "ordered", "retried", "job", "done")
}

// names of the pods that the agent knows.
func (m *machine) names() []string {
	names := map[string]bool{}
	for _, pod := range m.manager.Pods() {
		names[pod.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// leavesNothing deletes the pods, the last there are, and looks for what is left of
// any: on disk, in memory and in the runtime.
func (m *machine) leavesNothing(pods ...string) {
	m.t.Helper()
	t := m.t
	var namespaces []string
	for _, pod := range m.manager.Active() {
		namespaces = append(namespaces, m.netns(pod.Name))
	}
	require.NotEmpty(t, namespaces)
	for _, pod := range pods {
		m.end(pod)
	}
	require.Eventually(t, func() bool { return len(m.names()) == 0 }, patience, wink)
	m.halt()
	sandboxes, err := m.c.Runtime.ListPodSandbox(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, sandboxes)
	containers, err := m.c.Runtime.ListContainers(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, containers)
	require.Zero(t, m.manager.GPUsInUse())
	require.Empty(t, m.helpers())
	require.Empty(t, m.leases())
	for _, ns := range namespaces {
		require.NoFileExists(t, ns)
	}
	require.Empty(t, critest.Mounts(m.root))
	require.Empty(t, slices.DeleteFunc(m.c.Mounts(), func(point string) bool { return strings.HasSuffix(point, "/state") }))
	for _, folder := range []string{"volumes", "state", "logs"} {
		require.Empty(t, files(t, filepath.Join(m.root, folder)))
	}
	require.Empty(t, m.cgroups(), "cgroups of pods")
}

// cgroups of pods that are there.
func (m *machine) cgroups() []string {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(cgroup.Mount, "*", m.cgroup, "pod*"))
	require.NoError(m.t, err)
	unified, err := filepath.Glob(filepath.Join(cgroup.Mount, m.cgroup, "pod*"))
	require.NoError(m.t, err)
	return append(found, unified...)
}

// While a machine was off, its binding may have been ended by force: what it remembers
// runs again once the API, which accepts the credential, has shown it, and not before.
func TestABootWithoutTheAPIStartsNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	l := newLine(m)
	m.line = l
	m.withRange()
	m.start()
	for _, name := range []string{"steady", "gone"} {
		m.create(shell(name, obedient))
		m.awaitPhase(name, corev1.PodRunning)
	}
	m.powerOff()
	require.NoError(t, m.client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	l.cut()
	m.boots++
	m.c.Boot(t)
	m.startAway()
	require.Eventually(t, func() bool { return len(m.manager.Active()) == 2 }, patience, wink, "remembered")
	refused := l.refused.Load()
	require.Eventually(t, func() bool { return l.refused.Load() > refused+5 }, patience, wink, "it asks")
	there, err := m.manager.lister.Pods(t.Context())
	require.NoError(t, err)
	for _, pod := range there {
		require.False(t, pod.MayRun(), pod.Name)
	}
	l.mend()
	m.await("steady", "restarted", restarted(1))
	require.Eventually(t, func() bool { return m.worker("gone") == nil }, patience, wink)
}
