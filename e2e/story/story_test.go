package story

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/ainode/ainode/api/contract"
)

// TestStory walks the story of `make demo` and attacks what stands. The parts
// build on each other, so the first that fails ends it.
func TestStory(t *testing.T) {
	require.Zero(t, os.Geteuid(), "the story makes network namespaces and runs containerd: run the tests as root (sudo make test)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &Story{Root: root, Dir: filepath.Join(root, ".build", "story"), Out: t.Output()}
	ctx := t.Context()

	require.NoError(t, s.Build(ctx))
	// A run that was cut off left its cluster: that is not what is tested here.
	_, err = s.devcluster(ctx, true, "down")
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.tellWhatStands(t)
		}
		_, err := s.devcluster(context.Background(), true, "down")
		require.NoError(t, err)
	})

	part := func(name string, test func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, test) {
			t.FailNow()
		}
	}
	do := func(steps ...func(context.Context) error) func(*testing.T) {
		return func(t *testing.T) {
			for _, step := range steps {
				require.NoError(t, step(ctx))
			}
		}
	}

	var ordinary string
	part("cluster", do(s.ClusterUp, s.LoadImages))
	part("an ordinary pod before the webhook is there", func(t *testing.T) {
		ordinary = s.ordinaryPod(t)
		require.Contains(t, ordinary, "nvidia.com/gpu")
	})
	part("chart", do(s.InstallChart))
	part("an ordinary pod is byte for byte what it was", func(t *testing.T) {
		require.Empty(t, cmp.Diff(ordinary, s.ordinaryPod(t)))
	})
	part("join", func(t *testing.T) { s.testJoin(t) })
	part("import and bind", func(t *testing.T) { s.testBind(t) })
	part("deploy", do(s.StartGateway, s.Deploy, s.Show, s.ShowBucket))
	part("node", func(t *testing.T) {
		var node corev1.Node
		s.get(t, &node, "node", Node)
		require.Equal(t, contract.NodeLabelValue, node.Labels[contract.NodeLabel])
		require.Equal(t, contract.TypeLabelValue, node.Labels[contract.TypeLabel])
		require.Contains(t, node.Spec.Taints, contract.Taint())
		gpus := node.Status.Allocatable[contract.GPUResource]
		require.EqualValues(t, 8, gpus.Value())
		if !exists("/dev/nvidiactl") {
			require.NotEmpty(t, node.Labels[contract.SimulatedLabel], "a simulated card must say so")
			list := s.must(t, "ainode", "list")
			require.Contains(t, list, "simulated")
		}
	})
	part("pods", func(t *testing.T) { s.testPods(t) })
	part("kubectl", func(t *testing.T) { s.testKubectl(t) })
	part("doctor", func(t *testing.T) { s.testDoctor(t) })
	part("run", func(t *testing.T) { s.testRun(t) })
	part("refusals", func(t *testing.T) { s.testRefusals(t) })
	part("a configmap that comes late", func(t *testing.T) { s.testLateConfigMap(t) })
	part("a token that the node is not given", func(t *testing.T) { s.testRefusedToken(t) })
	part("the agent is killed", func(t *testing.T) { s.testKilledAgent(t) })
	part("a dead credential", func(t *testing.T) { s.testRenew(t) })
	part("what its accounts may do", func(t *testing.T) { s.testLeastPrivilege(t) })
	part("slices of a card", func(t *testing.T) { s.testSlices(t) })
	part("a bucket in a pod", func(t *testing.T) { s.testBucket(t) })
	part("a disk of a CSI driver", func(t *testing.T) { s.testDisk(t) })
	part("the plugin's bad input", func(t *testing.T) { s.testBadInput(t) })
	part("kubeconfigs as people have them", func(t *testing.T) { s.testKubeconfigs(t) })
	part("imports by every way", func(t *testing.T) { s.testImports(t) })
	part("unbind", func(t *testing.T) { s.testUnbind(t) })
	part("nothing of the bucket stays on the machine", func(t *testing.T) { s.testBucketGone(t) })
	part("pods with addresses of their own", func(t *testing.T) { s.testPodAddresses(t) })
	part("a plugin that dies after the release", func(t *testing.T) { s.testDeadPlugin(t) })
	part("a binding with an end", func(t *testing.T) { s.testTerm(t) })
	part("delete the config, remove the node", func(t *testing.T) { s.testRemove(t) })
	part("down leaves nothing", func(t *testing.T) {
		// dcID-machine-1: links, cgroups and the rest carry the id too.
		id := strings.TrimPrefix(strings.TrimSuffix(s.cluster.Machines[0].Netns, "-"+machine), "dc")
		running := s.traces(t, id)
		for _, kind := range []string{"links", "namespaces", "processes", "cgroups", "mounts"} {
			require.NotEmpty(t, running[kind], "this test does not see the cluster's %s, so it could not see leftovers", kind)
		}
		_, err := s.devcluster(ctx, true, "down")
		require.NoError(t, err)
		// The kernel may take a moment to bury what was killed.
		eventually(t, 2*time.Minute, "nothing is left", func() (bool, string) {
			left := s.traces(t, id)
			return len(left) == 0, fmt.Sprint(left)
		})
	})
}

// must runs kubectl and demands that it ends with 0.
func (s *Story) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), args...)
	require.NoError(t, err)
	return out
}

// refused runs kubectl and demands exit code 1; what it printed on stderr comes
// back.
func (s *Story) refused(t *testing.T, args ...string) string {
	t.Helper()
	_, err := s.Kubectl(t.Context(), args...)
	var failed *Failed
	require.ErrorAs(t, err, &failed, "kubectl %s must be refused", strings.Join(args, " "))
	require.Equal(t, 1, failed.Code)
	return failed.Stderr
}

func (s *Story) get(t *testing.T, into any, args ...string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(s.must(t, append([]string{"get", "-o", "json"}, args...)...)), into))
}

func (s *Story) pods(t *testing.T, args ...string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	s.get(t, &list, append([]string{"pods"}, args...)...)
	return list.Items
}

func (s *Story) apply(t *testing.T, manifest string) string {
	t.Helper()
	out, err := s.Apply(t.Context(), manifest)
	require.NoError(t, err)
	return out
}

// applyRefused demands that the API server refuses a manifest.
func (s *Story) applyRefused(t *testing.T, manifest string) string {
	t.Helper()
	_, err := s.Apply(t.Context(), manifest)
	var failed *Failed
	require.ErrorAs(t, err, &failed, "this must be refused:\n%s", manifest)
	return failed.Stderr
}

// eventually asks until ok, and tells what it last saw.
func eventually(t *testing.T, within time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s; last seen: %s", what, within, saw)
		}
		<-tick.C
	}
}

// ordinaryPod is what the API server would store of a pod that is no AI-node pod,
// without what differs between any two pods.
func (s *Story) ordinaryPod(t *testing.T) string {
	t.Helper()
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ordinary","labels":{"app":"x"}},"spec":{"hostNetwork":true,
"containers":[{"name":"c","image":"demo.local/tools:v1","resources":{"limits":{"nvidia.com/gpu":"1"}},"securityContext":{"runAsUser":0}}],
"volumes":[{"name":"d","emptyDir":{}}]}}`
	eventually(t, 2*time.Minute, "the default service account", func() (bool, string) {
		_, err := s.Kubectl(t.Context(), "get", "serviceaccount", "default")
		return err == nil, "none"
	})
	out, err := s.run(t.Context(), pod, false, s.bin("kubectl"), "create", "--dry-run=server", "-o", "json", "-f", "-")
	require.NoError(t, err)
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &object))
	metadata := object["metadata"].(map[string]any)
	delete(metadata, "uid")
	delete(metadata, "creationTimestamp")
	// The token volume's name is random.
	raw, err := json.MarshalIndent(object, "", " ")
	require.NoError(t, err)
	return randomVolume.ReplaceAllString(string(raw), "kube-api-access-x")
}

// traces are what the story leaves on the machine while it runs: everything that
// carries its directory or the name that devcluster derives from it. Whatever else
// comes and goes on the machine is not ours to judge.
func (s *Story) traces(t *testing.T, id string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for name, command := range map[string]string{
		"mounts":     "cat /proc/mounts",
		"links":      "ip -o link",
		"namespaces": "ip netns list",
		"rules":      "iptables-save",
		"processes":  "ps -eo pid,args; grep -H . /proc/[0-9]*/cgroup 2>/dev/null",
		"cgroups":    "find /sys/fs/cgroup -type d",
	} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command+" || true").Output()
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, id) || strings.Contains(line, s.Dir+"/") {
				found[name] = append(found[name], line)
			}
		}
	}
	return found
}

// tellWhatStands prints what one would look at by hand after a failure.
func (s *Story) tellWhatStands(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,ainodes,clusterconfigs,csr", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"get", "ainodes", "-o", "yaml"},
	} {
		out, err := s.Kubectl(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if raw, err := os.ReadFile(filepath.Join(s.Dir, "log", agentName+".log")); err == nil {
		t.Logf("the agent's log ends:\n%s", raw[max(0, len(raw)-6000):])
	}
}
