package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
)

func TestNotYet(t *testing.T) {
	t.Parallel()
	rows := []contract.Row{
		{Feature: "kept", Claims: []string{"PodSpec.HostAliases"}},
		{Feature: "claims", NotYet: "no claim is mounted", Claims: []string{"VolumeSource.PersistentVolumeClaim"}},
		{Feature: "probes", NotYet: "nobody probes", Claims: []string{"Container.StartupProbe"}},
	}
	raw := []byte(`{"spec": {"hostAliases": [{"ip": "10.0.0.1"}], "containers": [{"name": "a"}, {"name": "b", "startupProbe": {"periodSeconds": 1}}],
		"volumes": [{"name": "x", "emptyDir": {}}, {"name": "y", "persistentVolumeClaim": {"claimName": "data"}}]}}`)
	found, err := notYet(raw, rows, "spec.template.")
	require.NoError(t, err)
	require.Equal(t, []contract.Finding{
		{Feature: "claims", Field: "spec.template.spec.volumes[1].persistentVolumeClaim", Action: contract.Warn, Detail: "AI nodes do not have it yet: no claim is mounted", Remedy: "leave it out for now (kubectl ainode explain claims)"},
		{Feature: "probes", Field: "spec.template.spec.containers[1].startupProbe", Action: contract.Warn, Detail: "AI nodes do not have it yet: nobody probes", Remedy: "leave it out for now (kubectl ainode explain probes)"},
	}, found)
	found, err = notYet([]byte(`{"spec": {"containers": [{"name": "a"}]}}`), rows, "")
	require.NoError(t, err)
	require.Empty(t, found)
}

// Whatever the table says today, a pod is warned of a row that is not kept yet.
func TestEveryRowNotYetCanBeTold(t *testing.T) {
	t.Parallel()
	for _, row := range contract.Table {
		if row.NotYet != "" {
			require.NotEmpty(t, row.Claims, "%s is not kept yet, and names no field by which a pod asks for it", row.Feature)
		}
	}
}
