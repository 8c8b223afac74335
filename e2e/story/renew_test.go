package story

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// testRenew: the account that the agent acts with is deleted by hand. Its pods run on,
// all that look say so, and a renewal ends it, while the agent stays and after it was
// killed in between.
func (s *Story) testRenew(t *testing.T) {
	ctx := t.Context()
	before := s.running(t)
	processes := s.tasks(t)
	s.must(t, "delete", "serviceaccount", "-n", contract.SystemNamespace, identity.Target(Node, 1))
	eventually(t, 2*time.Minute, "the dead credential is told", func() (bool, string) {
		out := s.must(t, "ainode", "list")
		return strings.Contains(out, "CredentialInvalid"), out
	})
	require.Contains(t, s.must(t, "get", "ainode", Node, "-o", `jsonpath={.status.conditions[?(@.type=="CredentialValid")].message}`), "kubectl ainode renew "+Node)
	require.Contains(t, s.must(t, "ainode", "describe", Node), "CredentialInvalid")
	require.Equal(t, processes, s.tasks(t), "pods run on")

	out, err := s.typed(ctx, "kubectl", "ainode", "renew", Node)
	require.NoError(t, err)
	require.Contains(t, out, "renewed (epoch 2")
	serves := func(epoch string) {
		t.Helper()
		require.Contains(t, s.must(t, "ainode", "list"), "Bound")
		require.Equal(t, epoch, s.must(t, "get", "node", Node, "-o", `jsonpath={.metadata.annotations.ainode\.dev/bind-epoch}`))
		require.Equal(t, "training\n", s.must(t, "logs", "plain"))
		require.Equal(t, processes, s.tasks(t))
		require.Empty(t, cmp.Diff(before, s.running(t)))
		accounts := s.must(t, "get", "serviceaccounts", "-n", contract.SystemNamespace, "-o", "name")
		require.Equal(t, []string{"serviceaccount/ainode-" + Node + "-" + epoch}, grep(accounts, "serviceaccount/ainode-"+Node+"-"))
		require.Len(t, grep(s.must(t, "get", "clusterroles", "-o", "name"), "/ainode-"+Node+"-"), 1)
	}
	serves("2")

	// A good one is replaced too. What was not waited for is gone on with, whatever befell
	// the agent; until then the binding is the one that it was.
	require.NoError(t, s.KillAgent(ctx))
	s.must(t, "ainode", "renew", Node, "--wait=false")
	require.NoError(t, s.StartAgent(ctx))
	s.must(t, "ainode", "renew", Node)
	serves("3")

	// A pod that came before still is one of the binding's after another start.
	require.NoError(t, s.KillAgent(ctx))
	require.NoError(t, s.StartAgent(ctx))
	eventually(t, 2*time.Minute, "the agent answers again", func() (bool, string) {
		out, err := s.Kubectl(ctx, "exec", "plain", "--", "true")
		return err == nil, fmt.Sprint(out, err)
	})
	serves("3")
}

// tasks are the processes that the machine's container runtime keeps.
func (s *Story) tasks(t *testing.T) string {
	t.Helper()
	out, err := s.quiet(t.Context(), s.bin("ctr"), "--address", s.cluster.Machines[0].ContainerdSocket, "--namespace", "k8s.io", "tasks", "ls")
	require.NoError(t, err)
	lines := strings.Split(out, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// grep are the lines that hold a word.
func grep(text, word string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
