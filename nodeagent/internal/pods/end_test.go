package pods

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/podstatus"
)

// As when the machine shuts down.
func TestPodsThatTheNodeEnds(t *testing.T) {
	m := newMachine(t)
	m.start()
	// Its own grace is the shorter one, and long enough for it on any machine; the other
	// is deaf, and has less time than it would take.
	polite := shell("polite", "trap 'sleep 0.2; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
	polite.Spec.RestartPolicy = corev1.RestartPolicyAlways
	polite.Spec.TerminationGracePeriodSeconds = ptr.To(int64(patience / time.Second))
	deaf := shell("deaf", "trap '' TERM; while :; do sleep 1; done")
	deaf.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3600)
	m.create(polite)
	m.create(deaf)
	for _, name := range []string{"polite", "deaf"} {
		m.awaitPhase(name, corev1.PodRunning)
	}
	require.Len(t, m.manager.Active(), 2)
	m.awaitOutput("polite", "ready")

	verdict := podstatus.Verdict{
		Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown.", Disruption: true,
	}
	var over []<-chan struct{}
	for _, pod := range m.manager.Active() {
		verdict.Grace = ptr.To(time.Hour)
		if pod.Name == "deaf" {
			verdict.Grace = ptr.To(2 * time.Second)
		}
		over = append(over, m.manager.End(pod.UID, verdict))
	}
	require.Empty(t, m.manager.Active(), "nobody ends them twice")
	for _, name := range []string{"polite", "deaf"} {
		pod := m.awaitPhase(name, corev1.PodFailed)
		require.Equal(t, "Terminated", pod.Status.Reason)
		require.Equal(t, verdict.Message, pod.Status.Message)
		require.True(t, slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "TerminationByKubelet"
		}))
		require.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
		code := map[string]int32{"polite": 3, "deaf": 137}[name]
		require.Equal(t, code, pod.Status.ContainerStatuses[0].State.Terminated.ExitCode)
	}
	require.NoError(t, m.manager.Flush(t.Context()))
	over = append(over, m.manager.End("nobody", verdict)) // there is none to wait for
	for _, ended := range over {                          // of what the next agent ends, this one tells nothing
		received(t, ended)
	}
	require.False(t, slices.ContainsFunc(m.events.list(), func(e string) bool { return strings.Contains(e, "Failed") }), m.events)

	// After the reboot they stay what they are.
	m.halt()
	m.start()
	require.Equal(t, corev1.PodFailed, m.get("polite").Status.Phase)
	require.Empty(t, m.manager.Active())
}
