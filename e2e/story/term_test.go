package story

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// budget keeps pod "kept" from being evicted.
const budget = `{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"kept"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"kept"}}}}`

// testTerm binds with an end, which nobody has to be there for: pods are evicted, what
// a budget keeps is ended by the node in time, the machine lets go, and the target is
// cleared up.
func (s *Story) testTerm(t *testing.T) {
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", Config, "--until", "2020-01-01 08:00"), "is in the past")
	require.NoError(t, s.bind(t.Context(), "--until", "8h"))
	require.Contains(t, s.must(t, "ainode", "describe", Node), "free at ")
	s.apply(t, budget)
	s.apply(t, aiPod("goes", "", ""))
	s.apply(t, strings.Replace(aiPod("kept", "", ""), `"metadata":{`, `"metadata":{"labels":{"app":"kept"},`, 1))
	s.must(t, "wait", "--for=condition=Ready", "pod/goes", "pod/kept", "--timeout=2m")

	end := time.Now().Add(2 * time.Minute).Truncate(time.Second)
	out := s.must(t, "ainode", "bind", Node, "--to", Config, "--until", end.Format(time.RFC3339), "--drain-grace", "60s")
	require.Contains(t, out, "bound until ")
	// What an agent's own account may write into its record is to let go, and nothing else.
	agent := []string{"--as=system:serviceaccount:ainode-system:" + Node, "--as-group=system:serviceaccounts"}
	require.Contains(t, s.refused(t, append(agent, "patch", "ainode", Node, "--type=merge", "-p", `{"spec":{"until":"2100-01-01T00:00:00Z"}}`)...), "changes nothing else of its record")
	require.Contains(t, s.refused(t, append(agent, "patch", "ainode", Node, "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}},"spec":null}`)...), "ainode")

	// Watched, and not asked for again and again: each lasts a while only.
	waits := func(what, condition, show string) string {
		return s.must(t, "wait", "--for="+condition, what, "--timeout=5m", "-o", "jsonpath="+show)
	}
	require.Equal(t, "True", waits("node/"+Node, "jsonpath={.status.allocatable.pods}=0", `{.status.conditions[?(@.type=="Ready")].status}`), "those that are left still serve")
	waits("ainode/"+Node, "jsonpath={.status.bindStatus}=Draining", "{.metadata.name}")
	waits("pod/goes", "delete", "{.metadata.name}")
	require.Empty(t, s.must(t, "get", "pod", "kept", "-o", "jsonpath={.status.reason}"), "its budget keeps it for now")
	require.Equal(t, "True", waits("pod/kept", "jsonpath={.status.reason}=BindingEnded", `{.status.conditions[?(@.type=="DisruptionTarget")].status}`))
	events := s.must(t, "get", "events", "-o", `jsonpath={range .items[?(@.reason=="BindingEnds")]}{.involvedObject.kind}/{.involvedObject.name} {.message}{"\n"}{end}`)
	for _, told := range []string{"Pod/goes The node's binding ends at", "Pod/kept Pod is evicted", "Node/" + Node} {
		require.Contains(t, events, told)
	}
	eventually(t, 2*time.Minute, "the machine is free", func() (bool, string) {
		out := s.must(t, "get", "ainode", Node, "-o", "jsonpath={.status.bindStatus}{.spec.clusterConfigName}{.spec.until}")
		return out == "Unbound", out
	})
	require.False(t, time.Now().Before(end), "not a moment sooner")
	s.clearedUp(t)
	s.must(t, "delete", "poddisruptionbudget", "kept")
	require.Contains(t, s.must(t, "ainode", "unbind", Node), "unchanged")
	ctr, err := s.quiet(t.Context(), s.bin("ctr"), "--address", s.cluster.Machines[0].ContainerdSocket, "--namespace", "k8s.io", "tasks", "ls", "-q")
	require.NoError(t, err)
	require.Empty(t, strings.TrimSpace(ctr), fmt.Sprintf("a process outlived the binding that ended at %s", end))
}
