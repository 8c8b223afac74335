package yardstick

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
)

// Every row that rules a test out is one of the support table's.
func TestWhatIsRuledOutHasARow(t *testing.T) {
	t.Parallel()
	rows := map[contract.Feature]bool{}
	for _, row := range contract.Table {
		rows[row.Feature] = true
	}
	for name, feature := range ruledOut {
		require.True(t, rows[feature], "%s: the contract has no row %q", name, feature)
		require.Equal(t, name, testName([]string{name}), "written as the table has it")
	}
}

// The images are those of the Kubernetes version that the suite is of: a new one
// makes somebody look at them.
func TestImagesAreOfTheSuitesVersion(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../conformance/go.mod")
	require.NoError(t, err)
	cluster, err := os.ReadFile("../devcluster/go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`k8s\.io/kubernetes v\S+`)
	require.Equal(t, "k8s.io/kubernetes "+kubernetes, version.FindString(string(raw)))
	require.Equal(t, version.FindString(string(raw)), version.FindString(string(cluster)), "suite and cluster are of one version")
}

func TestReportIsReadAsTheSuiteWritesIt(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, os.WriteFile(file, []byte(`[{"StartTime":"2026-11-26T14:50:00Z","SpecReports":[
{"ContainerHierarchyTexts":null,"LeafNodeText":"","LeafNodeType":"SynchronizedBeforeSuite","State":"passed","NumAttempts":1},
{"ContainerHierarchyTexts":["[sig-node] Pods"],"LeafNodeText":"run [LinuxOnly] [NodeConformance] [Conformance]","State":"passed","NumAttempts":1},
{"ContainerHierarchyTexts":["[sig-node] Pods"],"LeafNodeText":"not asked for","State":"skipped","NumAttempts":0},
{"ContainerHierarchyTexts":["[sig-node] Pods"],"LeafNodeText":"not here","State":"skipped","NumAttempts":1},
{"ContainerHierarchyTexts":["[sig-node] Pods"],"LeafNodeText":"end","State":"failed","NumAttempts":1,
 "Failure":{"Message":"no end\nat all","Location":{"FileName":"/mod/pods.go","LineNumber":7}}}]}]`), 0o600))
	found, when, err := readReport(file)
	require.NoError(t, err)
	require.Equal(t, "2026-11-26T14:50:00Z", when.Format(time.RFC3339))
	require.Equal(t, results{
		"[sig-node] Pods run": {passed: true},
		"[sig-node] Pods end": {where: "pods.go:7", why: "no end"},
	}, found)

	require.NoError(t, os.WriteFile(file, []byte(`[{"SpecReports":[]}]`), 0o600))
	_, _, err = readReport(file)
	require.ErrorContains(t, err, "no test that ran", "a suite that ran nothing shows nothing")
}

func TestTableJudges(t *testing.T) {
	t.Parallel()
	pass, fail := result{passed: true}, result{where: "pods.go:7"}
	out := map[string]contract.Feature{"host's": "host-path"}
	for name, c := range map[string]struct {
		kubelet, node, hook results
		wrong               string
	}{
		"all well": {
			results{"a": pass, "machine's": fail, "host's": pass}, results{"a": pass, "machine's": fail, "host's": fail},
			results{"a": pass, "machine's": fail, "host's": fail}, ""},
		"ruled out behind the webhook alone": {results{"host's": pass}, results{"host's": pass}, results{"host's": fail}, ""},
		"worse than a kubelet":               {results{"a": pass}, results{"a": fail}, results{"a": pass}, "an AI node does not: a (pods.go:7)"},
		"worse behind the webhook":           {results{"a": pass}, results{"a": pass}, results{"a": fail}, "an AI node does not: a (pods.go:7)"},
		"ruled out and passes":               {results{"host's": pass}, results{"host's": pass}, results{"host's": pass}, "ruled out by host-path, and passes: host's"},
		"ruled out and not there":            {results{"a": pass}, results{"a": pass}, results{"a": pass}, "no test that runs here: host's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := compare(c.kubelet, c.node, c.hook, out)
			if c.wrong == "" {
				require.NoError(t, got.judge(out))
			} else {
				require.ErrorContains(t, got.judge(out), c.wrong)
			}
		})
	}
}

func TestTableIsWritten(t *testing.T) {
	t.Parallel()
	pass, fail := result{passed: true}, result{}
	got := compare(results{"[x] a": pass, "b_b": pass}, results{"[x] a": pass, "b_b": fail}, results{"[x] a": pass, "b_b": fail, "only here": pass},
		map[string]contract.Feature{"b_b": "host-path"})
	require.Equal(t, "Of 2 tests pass: 2 on a kubelet, 1 on an AI node, 1 on an AI node behind the webhook. 1 are ruled out by the contract.\n", got.summary())
	text := got.markdown()
	require.Contains(t, text, "| b\\_b | passes | **fails** | **fails** | [`host-path`](../SUPPORT.md) |\n")
	require.Contains(t, text, "- \\[x] a\n")
}

func TestProgressIsCounted(t *testing.T) {
	t.Parallel()
	require.Equal(t, "the suite gets ready", progressOf("Running Suite"))
	require.Equal(t, "4 of 236 tests, 2 failed", progressOf("Will run 236 of 582 specs\n"+
		"SS•S•S\n• [FAILED] [2.0 seconds]\n[sig-node] Pods run\n---\nSSS\n• [PANICKED] [1 s]\n"))
}
