package admission

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

// calls is how often the API server has called each entry of ours, by its own
// metrics: a counter of requests and the count of the duration histogram.
func (c *cluster) calls(t *testing.T) map[string]int {
	t.Helper()
	raw, err := c.kube.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	require.NoError(t, err)
	calls := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		metric, rest, _ := strings.Cut(line, "{")
		if metric != "apiserver_admission_webhook_request_total" && metric != "apiserver_admission_webhook_admission_duration_seconds_count" {
			continue
		}
		labels, value, ok := strings.Cut(rest, "} ")
		if !ok || !strings.Contains(labels, contract.Group+`"`) {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		require.NoError(t, err)
		calls[metric+" "+label(labels, "type")+" "+label(labels, "name")] += int(n)
	}
	return calls
}

func label(labels, name string) string {
	_, rest, _ := strings.Cut(labels, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// pod is a pod of one container in flow style.
func flowPod(t *testing.T, metadata, spec string) map[string]any {
	return object(t, `{apiVersion: v1, kind: Pod, metadata: {name: p, %s}, spec: {%s, containers: [{name: a, image: a, resources: {limits: {nvidia.com/gpu: "%d"}}}]}}`,
		metadata, spec, map[bool]int{true: 1}[strings.Contains(metadata, "wants: gpu")])
}

// testSelection: by the API server's own count, the match conditions decide before any
// call. A namespace that opts in means its GPU pods and no other.
func (c *cluster) testSelection(t *testing.T) {
	gpu := `labels: {wants: gpu}`
	const selects = `nodeSelector: {alibabacloud.com/virtual-node: "true"}`
	const plain, optedIn = "plain", "opted-in"
	type pod struct {
		name, namespace, metadata, spec string
	}
	before := c.calls(t)
	require.NotEmpty(t, before, "the API server counts no calls of ours: this test would see nothing")
	outside := []pod{
		{"ordinary", plain, "labels: {app: x}", "hostNetwork: true"},
		{"ordinary with a GPU", plain, gpu, "hostNetwork: true"},
		{"ordinary in an opted-in namespace", optedIn, "labels: {app: x}", "hostNetwork: true"},
		{"no GPU in a restricted one", "both", "labels: {app: x}", "securityContext: {}"},
		{"a GPU on an ordinary node by name", optedIn, gpu, "nodeName: node-1"},
		{"a GPU on other nodes by selector", optedIn, gpu, `nodeSelector: {alibabacloud.com/virtual-node: "false"}`},
		{"a GPU, kept off by affinity", optedIn, gpu, "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: DoesNotExist}]}]}}}"},
		{"opts out and selects", plain, `labels: {ainode.dev/schedule: "false"}`, selects},
		{"opts out in an opted-in namespace", optedIn, `labels: {wants: gpu, ainode.dev/schedule: "false"}`, "hostPID: true"},
		{"a number of GPUs alone opts nobody in", plain, `labels: {ainode.dev/gpus: "1"}`, "hostPID: true"},
		{"a DaemonSet's", plain, "labels: {app: x}, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, uid: u, controller: true}]", selects},
		{"tolerates everything", plain, "labels: {app: x}", "tolerations: [{operator: Exists}]"},
		{"may go to an AI node or elsewhere", plain, "labels: {app: x}", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: Exists}]}, {matchExpressions: [{key: zone, operator: Exists}]}]}}}"},
		{"kube-system's", "kube-system", "labels: {app: x}", selects},
		{"kube-node-lease's", "kube-node-lease", "labels: {app: x}", selects},
		{"our own namespace's", system, `labels: {ainode.dev/schedule: "true"}`, selects},
	}
	for _, p := range outside {
		got := c.try(t.Context(), pods, p.namespace, flowPod(t, p.metadata, p.spec))
		if p.namespace != "both" { // there Pod Security refuses it, unchanged
			require.NoError(t, got.err, p.name)
			require.NotContains(t, fmt.Sprint(got.object["metadata"]), contract.AdmissionAnnotation, p.name)
		}
		require.NotContains(t, strings.Join(got.warnings, "\n"), "AI node", p.name)
	}
	workload := c.try(t.Context(), deployments, optedIn, object(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}`))
	require.NoError(t, workload.err)
	// What is no CREATE and no ungating is not looked at either, not even of ours.
	c.create(t, pods, plain, `{apiVersion: v1, kind: Pod, metadata: {name: update, labels: {ainode.dev/schedule: "false"}}, spec: {%s, containers: [{name: a, image: a}]}}`, selects)
	require.NoError(t, c.patch(t, pods, plain, "update", `{"metadata":{"labels":{"ainode.dev/schedule":"true"}}}`))
	require.NoError(t, c.patch(t, pods, plain, "update", `{"status":{"reason":"x"}}`, "status"))
	require.NoError(t, c.delete(t, pods, plain, "update"))
	require.Equal(t, before, c.calls(t), "a pod that is none of ours caused a call")
	t.Logf("%d pods outside: no call of %d counters", len(outside), len(before))

	inside := []struct {
		pod
		entry string
	}{
		{pod{"selects", plain, "labels: {app: x}", selects}, ""},
		{pod{"by affinity", plain, "labels: {app: x}", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: Exists}]}]}}}"}, ""},
		{pod{"by name", plain, "labels: {app: x}", "nodeName: ai-h200-01"}, ""},
		{pod{"opts in", plain, `labels: {ainode.dev/schedule: "true"}`, "hostPID: true"}, ""},
		{pod{"a GPU in an opted-in namespace", optedIn, gpu, "hostPID: true"}, "opted-in."},
		{pod{"selects in a restricted one", "restricted", "labels: {app: x}", selects}, "restricted."},
		{pod{"a GPU in an opted-in restricted one", "both", gpu, "hostPID: true"}, "opted-in.restricted."},
		{pod{"a number of GPUs in an opted-in one", optedIn, `labels: {ainode.dev/gpus: "1"}`, "hostPID: true"}, "opted-in."},
	}
	for _, p := range inside {
		before := c.calls(t)
		c.try(t.Context(), pods, p.namespace, flowPod(t, p.metadata, p.spec))
		called := map[string]bool{}
		for name, n := range c.calls(t) {
			if n > before[name] {
				called[name] = true
			}
		}
		entry := p.entry + "pods.if-unreachable-check-deployment-ainode-webhook-in-" + system + "." + contract.Group
		for _, metric := range []string{"apiserver_admission_webhook_request_total", "apiserver_admission_webhook_admission_duration_seconds_count"} {
			require.True(t, called[metric+" admit "+entry], "%s: %v", p.name, called)
		}
		for name := range called {
			require.True(t, strings.HasSuffix(name, " "+entry), "%s: %s was called too", p.name, name)
		}
	}
}

// testMetrics: what the webhook counts, and what the API server's audit log keeps.
func (c *cluster) testMetrics(t *testing.T) {
	list, err := c.kube.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: webhookPods})
	require.NoError(t, err)
	require.Len(t, list.Items, 2)
	var all strings.Builder
	for _, pod := range list.Items {
		raw, err := c.kube.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces", system, "pods", pod.Name+":8080", "proxy/metrics").DoRaw(t.Context())
		require.NoError(t, err)
		all.Write(raw)
	}
	for _, metric := range []string{
		`ainode_webhook_findings_total{action="strip",feature="host-network"}`,
		`ainode_webhook_findings_total{action="deny",feature="gpu"}`,
		`ainode_webhook_findings_total{action="inject",feature="tolerations"}`,
		`ainode_webhook_admission_duration_seconds_bucket{endpoint="/mutate/pods",le="0.001"}`,
		`ainode_webhook_admission_duration_seconds_count{endpoint="/validate/workloads"}`,
	} {
		require.Contains(t, all.String(), metric)
	}
	eventually(t, "the audit log", func() error {
		raw, err := os.ReadFile(filepath.Join(c.Dir, "log", "audit.log"))
		if err != nil {
			return err
		}
		const want = `/findings":"placement=inject tolerations=inject host-pid=strip`
		at := strings.Index(string(raw), want)
		if at < 0 {
			return fmt.Errorf("no %s in it", want)
		}
		t.Log(string(raw[max(0, at-110) : at+len(want)+20]))
		return nil
	})
}
