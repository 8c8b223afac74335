package contract_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
)

var update = flag.Bool("update", false, "write the generated files")

const chart = "../../charts/ainode"

// chartFile is what the chart's templates take from the contract.
func chartFile(t *testing.T) string {
	t.Helper()
	raw, err := yaml.Marshal(map[string]any{
		"group":               contract.Group,
		"systemNamespace":     contract.SystemNamespace,
		"untouchedNamespaces": contract.UntouchedNamespaces(),
		"nodeLabel":           contract.NodeLabel,
		"nodeLabelValue":      contract.NodeLabelValue,
		"nodeNamePrefix":      contract.NodeNamePrefix,
		"nodeNameLabel":       contract.NodeNameLabel,
		"bindEpochAnnotation": contract.BindEpochAnnotation,
		"scheduleLabel":       contract.ScheduleLabel,
		"guardedNodeLabels":   contract.GuardedNodeLabels(),
		"ungate":              contract.UngateCondition(),
		"pods":                contract.MatchConditions("object", false),
		"podsOptedIn":         contract.MatchConditions("object", true),
		"workloads":           templateConditions("object.spec.template", false),
		"workloadsOptedIn":    templateConditions("object.spec.template", true),
		"cronjobs":            templateConditions("object.spec.jobTemplate.spec.template", false),
		"cronjobsOptedIn":     templateConditions("object.spec.jobTemplate.spec.template", true),
	})
	require.NoError(t, err)
	return "# Printed from api/contract (make generate); do not edit.\n" + string(raw)
}

func templateConditions(template string, optedIn bool) []contract.MatchCondition {
	return append([]contract.MatchCondition{contract.TemplateCondition(template)}, contract.MatchConditions(template, optedIn)...)
}

// What is printed from the table is current: run with -update to print it.
func TestSupportFilesAreCurrent(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"../../SUPPORT.md": contract.SupportPage(),
		filepath.Join(chart, "files", "contract.yaml"): chartFile(t),
	} {
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		}
		got, err := os.ReadFile(path)
		require.NoError(t, err, "run make generate")
		require.Empty(t, cmp.Diff(want, string(got)), "%s is not current: run make generate", path)
	}
}

// The chart's templates take the contract's strings from the printed file: none is
// typed again.
func TestChartRetypesNoContractString(t *testing.T) {
	t.Parallel()
	templates, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	require.NoError(t, err)
	require.Greater(t, len(templates), 5)
	for _, path := range templates {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, literal := range []string{
			contract.NodeLabel, contract.TaintKey, contract.TaintValue, contract.Group, contract.SystemNamespace,
			string(contract.GPUResource), contract.ScheduleLabel, contract.GPUsLabel,
		} {
			require.False(t, strings.Contains(string(raw), literal), "%s types %q: take it from files/contract.yaml", path, literal)
		}
	}
}
