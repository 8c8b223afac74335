package story

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// diagnosis is what is read of one check of either doctor.
type diagnosis struct{ ID, Node, Severity, What string }

// diagnoses are those of what a doctor printed with -o json, which ends with 0, or
// with 2 where it found something.
func diagnoses(t *testing.T, out string, err error) []diagnosis {
	t.Helper()
	var failed *Failed
	if errors.As(err, &failed) {
		require.Equal(t, 2, failed.Code, failed.Stderr)
		err = nil
	}
	require.NoError(t, err)
	var list struct{ Items []diagnosis }
	require.NoError(t, json.Unmarshal([]byte(out), &list), out)
	return list.Items
}

// testDoctor: where all is well nothing is found, and what is broken is.
func (s *Story) testDoctor(t *testing.T) {
	ctx := t.Context()
	look := func(args ...string) []diagnosis {
		out, err := s.Kubectl(ctx, append([]string{"ainode", "doctor", "-o", "json"}, args...)...)
		return diagnoses(t, out, err)
	}
	seen := map[string]bool{}
	for _, d := range look() {
		require.Equal(t, "ok", d.Severity, "%+v", d)
		seen[d.ID] = true
	}
	for _, id := range []string{"target-version", "clock", "webhook-replicas", "webhook-answers", "agent-clock", "serving", "node-conditions"} {
		require.True(t, seen[id], "%s was not looked at", id)
	}

	s.must(t, "taint", "node", Node, "node.cilium.io/agent-not-ready=:NoSchedule")
	s.must(t, "cordon", Node)
	s.must(t, "create", "clusterrole", "stray", "--verb=get", "--resource=pods")
	s.must(t, "label", "clusterrole", "stray", "ainode.dev/node="+Node)
	s.must(t, "annotate", "clusterrole", "stray", "ainode.dev/bind-epoch=0")
	var found []string
	for _, d := range look(Node) {
		if d.Severity != "ok" {
			found = append(found, d.ID)
		}
	}
	require.ElementsMatch(t, []string{"leftovers", "node", "node-taints"}, found)
	s.must(t, "delete", "clusterrole", "stray")
	s.must(t, "uncordon", Node)
	s.must(t, "taint", "node", Node, "node.cilium.io/agent-not-ready:NoSchedule-")

	// Who may read nothing is told so, part by part.
	unread := 0
	out, err := s.Kubectl(ctx, "ainode", "doctor", "-o", "json", "--as", "stranger")
	for _, d := range diagnoses(t, out, err) {
		if d.Severity != "ok" {
			unread++
		}
	}
	require.Positive(t, unread)

	// On the machine, while the agent runs. That nobody keeps the clock is this
	// test's machine's matter.
	out, err = s.devcluster(ctx, false, "exec", append([]string{machine, "--", s.bin("ainode-agent"), "doctor", "-o", "json"}, AgentOptions(s.cluster.Machines[0])...)...)
	all := diagnoses(t, out, err)
	for _, d := range all {
		require.True(t, d.Severity == "ok" || d.ID == "time" || d.ID == "pressure", "%+v", d)
	}
	for _, id := range []string{"runtime", "runc", "cdi", "hub", "bound", "agent", "port"} {
		require.True(t, slices.ContainsFunc(all, func(d diagnosis) bool { return d.ID == id }), "%s was not looked at", id)
	}
}
