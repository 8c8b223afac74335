package story

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
)

// everywhere is a DaemonSet that tolerates everything: its pod on the AI node is left
// Pending there, and no drain sends it away.
const everywhere = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      tolerations: [{operator: Exists}]
      containers: [{name: c, image: %s, imagePullPolicy: Never, command: [sleep, infinity]}]
`

// testDeadPlugin: a plugin that does not live to see the machine let go leaves nothing
// on the target for good. One that was told not to wait ends there by itself.
func (s *Story) testDeadPlugin(t *testing.T) {
	require.NoError(t, s.Bind(t.Context()))
	s.apply(t, fmt.Sprintf(everywhere, toolsImage))
	eventually(t, 2*time.Minute, "the DaemonSet's pod stands on the AI node", func() (bool, string) {
		out := s.must(t, "get", "pods", "-l", "app=everywhere", "--field-selector", "spec.nodeName="+Node, "-o", "name")
		return out != "", out
	})
	s.must(t, "ainode", "unbind", Node, "--wait=false")
	s.clearedUp(t)
	s.must(t, "delete", "daemonset", "everywhere", "--wait=true", "--timeout=2m")
	require.Contains(t, s.must(t, "ainode", "unbind", Node), "unchanged", "nothing was left for the plugin")
}

// clearedUp waits until nothing of the node stands on the target, though nobody types
// anything.
func (s *Story) clearedUp(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "nothing of the node is left on the target", func() (bool, string) {
		left := strings.Fields(s.must(t, "get", "nodes,pods,clusterroles,clusterrolebindings,csr", "-A", "-o",
			`jsonpath={range .items[*]}{.kind}/{.metadata.name}/{.spec.nodeName}/{.spec.username}{"\n"}{end}`))
		left = append(left, strings.Fields(s.must(t, "get", "serviceaccounts,roles,rolebindings", "-n", contract.SystemNamespace, "-o", "name"))...)
		left = append(left, strings.Fields(s.must(t, "get", "leases", "-n", "kube-node-lease", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}`))...)
		left = append(left, "listed/"+s.must(t, "get", "clusterconfig", Config, "-o", "jsonpath={.status.boundNodes}"))
		var its []string
		for _, line := range left {
			_, name, _ := strings.Cut(line, "/")
			// The agent's own account on the hub stays: the machine is still of the pool.
			if strings.Contains(line, Node) && !strings.HasPrefix(name, Node) && !strings.HasPrefix(name, "ainode-agent-") && !strings.HasPrefix(name, "ainode-join-") ||
				strings.HasPrefix(line, "Node/"+Node) || strings.HasPrefix(line, "Lease/"+Node) {
				its = append(its, line)
			}
		}
		return len(its) == 0, strings.Join(its, " ")
	})
}
