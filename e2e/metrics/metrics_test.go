//go:build long

package metrics

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

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ainode/ainode/e2e/story"
)

const (
	module  = "sigs.k8s.io/metrics-server"
	version = "v0.9.0"
	image   = "demo.local/metrics-server"
	tools   = "demo.local/tools:v1"
)

// patience bounds each wait: metrics-server reads every 15 s and needs two readings, the
// autoscaler looks every 15 s.
const patience = 5 * time.Minute

// overlay changes two things in the module's own manifests: the image, which is made here,
// and that the certificates of the nodes are verified by the cluster's authority.
const overlay = `
resources: [%s]
images: [{name: gcr.io/k8s-staging-metrics-server/metrics-server, newName: ` + image + `, newTag: ` + version + `}]
patches:
- target: {kind: Deployment, name: metrics-server}
  patch: |
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt}
`

// burning is a Deployment on the AI node each of whose pods takes all of the fifth of a
// processor that it may have, twice what it asked for, and an autoscaler that wants them
// to take half of that.
const burning = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: burn}
spec:
  selector: {matchLabels: {app: burn}}
  template:
    metadata: {labels: {app: burn}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      nodeSelector: {alibabacloud.com/virtual-node: "true"}
      containers:
      - name: c
        image: ` + tools + `
        imagePullPolicy: Never
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 200m, memory: 64Mi}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: burn}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: burn}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 100}}
`

func TestMetricsServer(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this makes network namespaces and runs containerd: run the tests as root (sudo make test-long)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &story.Story{Root: root, Dir: filepath.Join(root, ".build", "metrics"), Out: t.Output()}
	ctx := t.Context()
	require.NoError(t, s.Build(ctx))
	require.NoError(t, s.ClusterDown(ctx), "a run that was cut off left its cluster")
	t.Cleanup(func() {
		if t.Failed() {
			tellWhatStands(t, s)
		}
		require.NoError(t, s.ClusterDown(context.Background()))
	})
	server, manifests := metricsServer(t, s.Dir)
	for _, step := range []func(context.Context) error{s.ClusterUp, s.LoadImages, s.InstallChart, s.AddAndJoin, s.StartAgent, s.Import, s.Bind} {
		require.NoError(t, step(ctx))
	}
	require.NoError(t, s.LoadImage(ctx, image+":"+version, "--add", server+":/metrics-server:0755", "--entrypoint", "/metrics-server", "--user", "65532", "--to", "node"))

	kubectl(t, s, "apply", "-k", manifests)
	_, err = s.Apply(ctx, burning)
	require.NoError(t, err)
	kubectl(t, s, "rollout", "status", "deployment/burn", "--timeout=3m")
	kubectl(t, s, "rollout", "status", "deployment/metrics-server", "-n", "kube-system", "--timeout=3m")
	kubectl(t, s, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=3m")

	var node, pod string
	await(t, "kubectl top shows the AI node and its pod", func() (bool, string) {
		node, _ = s.Kubectl(ctx, "top", "node", story.Node, "--no-headers")
		pod, _ = s.Kubectl(ctx, "top", "pod", "-l", "app=burn", "--no-headers")
		used := strings.Fields(pod)
		return node != "" && len(used) >= 3 && milli(t, used[1]) >= 50, node + pod
	})
	t.Logf("kubectl top:\n%s%s", node, pod)
	// A machine that others burn too gives less; more than its limit nobody has.
	require.LessOrEqual(t, milli(t, strings.Fields(pod)[1]), int64(240), pod)
	took, memory := strings.Fields(node)[1], strings.Fields(node)[3]
	require.GreaterOrEqual(t, milli(t, took), milli(t, strings.Fields(pod)[1])/2, "the node takes what its pods do: %s", node)
	require.Positive(t, milli(t, memory), node)
	ordinary := kubectl(t, s, "top", "node", "node-1", "--no-headers")
	require.NotEmpty(t, ordinary)

	await(t, "the autoscaler has made three of one", func() (bool, string) {
		out, err := s.Kubectl(ctx, "get", "hpa", "burn", "-o", "jsonpath={.status}")
		ready, _ := s.Kubectl(ctx, "get", "deployment", "burn", "-o", "jsonpath={.status.readyReplicas}")
		return err == nil && ready == "3", out
	})
	t.Logf("kubectl get hpa:\n%s", kubectl(t, s, "get", "hpa", "burn"))
	nodes := strings.Fields(kubectl(t, s, "get", "pods", "-l", "app=burn", "-o", "jsonpath={.items[*].spec.nodeName}"))
	require.Equal(t, []string{story.Node, story.Node, story.Node}, nodes)
}

// metricsServer builds the program, and makes a folder that kubectl apply -k takes.
func metricsServer(t *testing.T, dir string) (program, manifests string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module+"@"+version).Output()
	require.NoError(t, err, "%s", out)
	var downloaded struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &downloaded))
	bin := filepath.Join(dir, "bin")
	build := exec.CommandContext(t.Context(), "go", "install", "-ldflags=-s -w", module+"/cmd/metrics-server@"+version)
	build.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "CGO_ENABLED=0")
	build.Dir = t.TempDir() // of no module
	out, err = build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	manifests = t.TempDir()
	base, err := filepath.Rel(manifests, filepath.Join(downloaded.Dir, "manifests", "base"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(manifests, "kustomization.yaml"), fmt.Appendf(nil, overlay, base), 0o600))
	return filepath.Join(bin, "metrics-server"), manifests
}

func milli(t *testing.T, text string) int64 {
	t.Helper()
	quantity, err := resource.ParseQuantity(text)
	require.NoError(t, err)
	return quantity.MilliValue()
}

func kubectl(t *testing.T, s *story.Story, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), args...)
	require.NoError(t, err)
	return out
}

// await asks until ok, and tells what it last saw.
func await(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	var saw string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		var done bool
		if done, saw = ok(); done {
			return
		}
	}
	t.Fatalf("%s: not within %s; last seen: %s", what, patience, saw)
}

func tellWhatStands(t *testing.T, s *story.Story) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,ainodes,hpa,apiservices", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", "kube-system", "deployment/metrics-server", "--tail=50"},
	} {
		out, err := s.Kubectl(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
