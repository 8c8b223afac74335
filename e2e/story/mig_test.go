package story

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// testSlices: a free card is cut into MIG slices while everything runs; a pod gets one
// and sees it alone; people see who has it; and the card is made whole again.
func (s *Story) testSlices(t *testing.T) {
	if exists("/dev/nvidiactl") {
		return // real cards are cut by their owner
	}
	free := regexp.MustCompile(`(?m)^  (\d): +-$`).FindStringSubmatch(s.must(t, "ainode", "describe", Node))
	require.NotNil(t, free, "a card is free")
	cut := func(layout string) {
		require.NoError(t, os.WriteFile(filepath.Join(s.cluster.Machines[0].CDIDir, "simulated", "faults"), []byte("mig "+layout+"\n"), 0o600))
	}
	const kind corev1.ResourceName = contract.MIGResourcePrefix + "1g.18gb"
	allocatable := func(cards, slices int64) {
		t.Helper()
		eventually(t, 2*time.Minute, "the Node counts slices", func() (bool, string) {
			var node corev1.Node
			s.get(t, &node, "node", Node)
			whole, parts := node.Status.Allocatable[contract.GPUResource], node.Status.Allocatable[kind]
			return whole.Value() == cards && parts.Value() == slices, fmt.Sprint(node.Status.Allocatable)
		})
	}
	cut(free[1] + ":1g.18gb*7")
	allocatable(7, 7)
	s.apply(t, aiPod("sliced", gpus(`"`+string(kind)+`":"1"`, ""), ""))
	s.must(t, "wait", "--for=condition=Ready", "pod/sliced", "--timeout=2m")
	list := s.must(t, "exec", "sliced", "--", "nvidia-smi", "-L")
	require.Equal(t, 1, strings.Count(list, "MIG 1g.18gb"), list)
	require.Equal(t, 1, strings.Count(list, "GPU "), list)
	require.Regexp(t, `(?m)^`+free[1]+`/\d+ 1g.18gb +.*default/sliced$`, s.must(t, "ainode", "top", Node))
	told := regexp.MustCompile(`(?m)^  ` + free[1] + ` 1g.18gb: +default/sliced \(`)
	eventually(t, 2*time.Minute, "the card map shows the slice", func() (bool, string) {
		out := s.must(t, "ainode", "describe", Node)
		return told.MatchString(out), out
	})

	// Cut anew under the pod: it is told, and the card goes to nobody else until it ends.
	cut("")
	allocatable(7, 0)
	eventually(t, 2*time.Minute, "the pod is told", func() (bool, string) {
		out := s.must(t, "get", "pod", "sliced", "-o", `jsonpath={.status.conditions[?(@.type=="`+contract.GPUFaultCondition+`")].message}`)
		return strings.Contains(out, "is no more"), out
	})
	s.must(t, "delete", "pod", "sliced", "--wait=true", "--timeout=2m")
	allocatable(8, 0)
}
