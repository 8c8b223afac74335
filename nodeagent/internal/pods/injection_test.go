package pods

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/nodeagent/internal/cri"
	"github.com/ainode/ainode/nodeagent/internal/cri/critest"
)

// inject has the next agent ask the runtime how it gives cards to containers.
func (m *machine) inject() {
	settings, err := cri.AskSettings(m.t.Context(), m.c.Runtime)
	require.NoError(m.t, err)
	m.injection = settings.Injection
}

// sandboxHandler is the handler that the pod's sandbox runs with.
func (m *machine) sandboxHandler(pod *corev1.Pod) string {
	m.t.Helper()
	actual, err := cri.NewLister(m.c.Runtime).Pod(m.t.Context(), pod.UID)
	require.NoError(m.t, err)
	require.NotEmpty(m.t, actual.Sandboxes)
	return actual.SandboxStatus.GetRuntimeHandler()
}

const visible = `echo "$NVIDIA_VISIBLE_DEVICES"`

// greedy asks, in its environment, for all cards that there are.
func greedy(name string) *corev1.Pod {
	pod := shell(name, obedient)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "NVIDIA_VISIBLE_DEVICES", Value: "all"}, {Name: "OTHER", Value: "kept"}}
	return pod
}

// On a containerd that has CDI turned off, cards get in by NVIDIA's runtime handler (here
// runc under another name): the pod's own, whatever it says, and nobody else's.
func TestCardsWithoutCDI(t *testing.T) {
	t.Parallel()
	program, calls := critest.Wrapped(t, "nvidia-container-runtime")
	setup := critest.Setup{Old: true, Handlers: map[string]string{"nvidia": program}}
	m := newMachineOn(t, setup)
	m.writeCards("GPU-0", "GPU-1", "GPU-2")
	m.inject()
	m.start()

	pod := asking(greedy("train"), "main", 2)
	none := greedy("").Spec.Containers[0]
	none.Name = "none"
	pod.Spec.Containers = append([]corev1.Container{none}, pod.Spec.Containers...)
	m.create(pod)
	running := m.awaitPhase("train", corev1.PodRunning)
	require.Equal(t, "nvidia", m.sandboxHandler(running))
	require.Contains(t, calls(), "create", "the handler's program made it")
	require.Equal(t, "void", m.sh(running, visible), "a container that asked for none")
	main := running.DeepCopy()
	main.Spec.Containers = main.Spec.Containers[1:]
	require.Equal(t, "GPU-0,GPU-1", m.sh(main, visible))
	require.Equal(t, "kept none", m.sh(main, `echo "$OTHER ${CARD_0:-none}"`), "there is no CDI")

	before := calls()
	m.create(greedy("plain"))
	plain := m.awaitPhase("plain", corev1.PodRunning)
	require.Empty(t, m.sandboxHandler(plain))
	require.Equal(t, "all", m.sh(plain, visible), "runc goes by no such thing")
	require.Equal(t, before, calls())

	// A new agent goes on with what is there; where NVIDIA's runtime is the default, it
	// has to be told of pods without cards too.
	m.halt()
	setup.Default = "nvidia"
	m.c.SetUp(t, setup)
	m.inject()
	m.start()
	m.create(greedy("tame"))
	require.Equal(t, "void", m.sh(m.awaitPhase("tame", corev1.PodRunning), visible))
	m.create(asking(greedy("late"), "main", 1))
	require.Equal(t, "GPU-2", m.sh(m.awaitPhase("late", corev1.PodRunning), visible))
	m.end("late")

	// With CDI the same default runtime must not add to what CDI gives.
	m.halt()
	setup.CDI = true
	m.c.SetUp(t, setup)
	m.inject()
	m.start()
	m.create(asking(greedy("both"), "main", 1))
	both := m.awaitPhase("both", corev1.PodRunning)
	require.Equal(t, "void GPU-2", m.sh(both, `echo "$NVIDIA_VISIBLE_DEVICES $CARD_2"`))
	require.Empty(t, m.sandboxHandler(both))
}

// Where there is no way for a card to get in, the pod waits and says so, and begins when
// there is one. What began by CDI is not begun again without its card.
func TestNoWayForCards(t *testing.T) {
	t.Parallel()
	m := newMachineOn(t, critest.Setup{Old: true})
	m.writeCards("GPU-0")
	m.inject()
	m.start()
	m.create(shell("plain", obedient))
	m.awaitPhase("plain", corev1.PodRunning)
	m.create(asking(shell("train", "echo $CARD_0; "+obedient), "main", 1))
	m.awaitMessage("train", "it has CDI turned off")

	m.halt()
	m.c.SetUp(t, critest.Setup{Old: true, CDI: true})
	m.inject()
	m.start()
	require.Equal(t, "GPU-0", m.sh(m.awaitPhase("train", corev1.PodRunning), "echo $CARD_0"))

	m.halt()
	program, _ := critest.Wrapped(t, "nvidia-container-runtime")
	m.c.SetUp(t, critest.Setup{Old: true, Handlers: map[string]string{"nvidia": program}})
	m.inject()
	m.start()
	id := strings.TrimPrefix(m.get("train").Status.ContainerStatuses[0].ContainerID, "containerd://")
	_, _, _ = m.c.Runtime.ExecSync(t.Context(), id, []string{"kill", "1"}, patience) // its container ends, and may take this along; its sandbox stays
	m.awaitMessage("train", "delete the pod to have it placed anew")
}
