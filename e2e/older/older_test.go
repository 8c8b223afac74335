//go:build long

package older

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/e2e/story"
)

// kubernetes is what devcluster calls the older one.
const kubernetes = "v1.35.4"

const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"works","labels":{"ainode.dev/schedule":"true"}},
"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"demo.local/tools:v1","imagePullPolicy":"Never",
"command":["sh","-c","echo here; trap 'exit 0' TERM; while true; do sleep 1; done"],"resources":{"limits":{"nvidia.com/gpu":"1"}}}]}}`

// TestOlderAPIServer walks a node into a binding to the older cluster and out of it.
func TestOlderAPIServer(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this makes network namespaces and runs containerd: run the tests as root (sudo make test-long)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &story.Story{Root: root, Dir: filepath.Join(root, ".build", "older"), Out: t.Output(), Kubernetes: kubernetes}
	ctx := t.Context()
	require.NoError(t, s.TakePrograms(ctx, filepath.Join(root, ".build", "story")))
	require.NoError(t, s.Build(ctx))
	require.NoError(t, s.ClusterDown(ctx), "a run that was cut off left its cluster")
	t.Cleanup(func() { require.NoError(t, s.ClusterDown(context.Background())) })
	for _, step := range []func(context.Context) error{s.ClusterUp, s.LoadImages, s.InstallChart, s.AddAndJoin, s.StartAgent} {
		require.NoError(t, step(ctx))
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := s.Kubectl(ctx, args...)
		require.NoError(t, err)
		return out
	}
	require.Contains(t, kubectl("version"), "Server Version: "+kubernetes)
	require.NotContains(t, kubectl("get", "validatingadmissionpolicies", "-o", "jsonpath={.items[*].status.typeChecking}"), "expressionWarnings",
		"the policies say what this API server knows")

	require.Contains(t, kubectl("ainode", "import", story.Config), "Kubernetes "+kubernetes)
	require.NoError(t, s.Bind(ctx))
	applied, err := s.Apply(ctx, pod)
	require.NoError(t, err)
	require.Contains(t, applied, "created")
	kubectl("wait", "--for=condition=Ready", "pod/works", "--timeout=3m")
	where := "jsonpath={.spec.nodeName} {.metadata.uid} {.status.containerStatuses[0].containerID}"
	before := kubectl("get", "pod", "works", "-o", where)
	require.True(t, strings.HasPrefix(before, story.Node+" "), before)
	require.Equal(t, "here\n", kubectl("logs", "works"))
	require.Contains(t, kubectl("exec", "works", "--", "nvidia-smi", "-L"), "GPU 0")
	require.Contains(t, kubectl("ainode", "describe", story.Node), "this cluster does not keep which pod has which card")

	require.Contains(t, kubectl("ainode", "renew", story.Node), "renewed")
	require.Equal(t, before, kubectl("get", "pod", "works", "-o", where), "pods run on")
	require.Equal(t, "here\n", kubectl("logs", "works"))
	require.Contains(t, kubectl("ainode", "doctor"), "√ target-version: "+kubernetes, "nothing is found")

	require.Contains(t, kubectl("ainode", "unbind", story.Node, "--timeout", "3m"), "unbound")
	require.Empty(t, kubectl("get", "node", story.Node, "--ignore-not-found"))
	kubectl("ainode", "delete-config", story.Config)
}
