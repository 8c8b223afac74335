package admission

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/e2e/story"
)

// TestAdmission goes from a cluster without us to one with the webhook in all its
// settings.
func TestAdmission(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this makes network namespaces and runs containerd: run the tests as root (sudo make test)")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	s := &story.Story{Root: root, Dir: filepath.Join(root, ".build", "admission"), Out: t.Output()}
	ctx := t.Context()
	require.NoError(t, s.BuildWebhook(ctx, filepath.Join(root, ".build", "story")))
	require.NoError(t, s.ClusterDown(ctx), "a run that was cut off left its cluster")
	t.Cleanup(func() { require.NoError(t, s.ClusterDown(context.Background())) })
	require.NoError(t, s.ClusterUp(ctx))
	require.NoError(t, s.LoadNodeImages(ctx))

	c := newCluster(t, s)
	t.Cleanup(func() {
		if t.Failed() {
			c.tellWhatStands(t)
		}
	})
	// What the other parts build on.
	must := func(name string, test func(*testing.T)) {
		t.Helper()
		if !t.Run(name, test) {
			t.FailNow()
		}
	}
	o := &oracle{cluster: c}
	must("what the API server does by itself", o.testBefore)
	must("workloads and pods from before", c.testBefore)
	must("chart", func(t *testing.T) { require.NoError(t, s.InstallChart(ctx)) })
	t.Run("every row of the table", o.testDefault)
	t.Run("check --server", o.testCheckServer)
	t.Run("every row on workloads", o.testWorkloads)
	t.Run("a pod is ungated", c.testUngated)
	t.Run("selection", c.testSelection)
	t.Run("a violating workload", c.testViolatingWorkload)
	t.Run("violating workloads of the other kinds", c.testViolatingKinds)
	t.Run("a stripped Deployment becomes available", c.testAvailable)
	t.Run("metrics and audit", c.testMetrics)
	t.Run("guards of the records", c.testRecords)
	t.Run("guards of the target", c.testIdentity)
	t.Run("guards of the accounts", c.testTokens)
	t.Run("housekeeper", c.testHousekeeper)
	t.Run("rotation", c.testRotation)
	t.Run("no webhook runs", c.testOutage)
	t.Run("every row in other settings", o.testPolicies)
}
