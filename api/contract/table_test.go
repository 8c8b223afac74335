package contract_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
)

// Ids are API and the table is read by people: neither may be sloppy.
func TestTableIsSound(t *testing.T) {
	t.Parallel()
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[contract.Feature]bool{}
	for _, row := range contract.Table {
		require.Regexp(t, kebab, row.Feature)
		require.False(t, seen[row.Feature], "%s stands twice", row.Feature)
		seen[row.Feature] = true
		require.NotEmpty(t, row.Vendor, row.Feature)
		require.NotEmpty(t, row.Default, row.Feature)
		require.NotEmpty(t, row.Agent, row.Feature)
		require.Regexp(t, `\.$`, row.Text, "%s: the text is sentences", row.Feature)
		require.NotEmpty(t, row.Default.Meaning(), row.Feature)
		if row.Default != contract.Allow {
			require.Regexp(t, `[^.]$`, row.Fix, "%s: what to write instead, without a full stop", row.Feature)
		}
		require.NotContains(t, row.Overrides, row.Default, "%s: an override is another mode", row.Feature)
		for _, o := range row.Overrides {
			require.Contains(t, []contract.Action{contract.Allow, contract.Warn, contract.Strip, contract.Deny}, o, row.Feature)
		}
	}
	// The rows that a release has promised: their ids are API.
	for _, feature := range []contract.Feature{
		"placement", "tolerations", "gpu", "daemonset", "host-network", "host-port", "host-pid", "host-ipc", "security-context",
		"service-account-token", "empty-dir", "host-path", "volume-types", "resource-claims", "runtime-class", "dns", "service-access",
		"pod-affinity", "topology-spread", "node-affinity", "network-policy", "pod-disruption-budget", "labels", "annotations",
		"deployment", "statefulset", "pod", "pod-ip", "service-endpoint", "config-map", "secret", "persistent-volume-claim",
		"logs-exec", "metrics-api", "init-containers", "probes",
	} {
		require.True(t, seen[feature], "row %s is missing", feature)
		delete(seen, feature)
	}
	require.Empty(t, seen, "rows that the contract does not know")
}

func TestPolicySaysWhatItCannotBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy contract.Policy
		says   string
	}{
		{contract.Policy{}, ""},
		{contract.Policy{Profile: contract.ProfileAgent, Overrides: map[contract.Feature]contract.Action{"host-network": contract.Deny, "dns": contract.Normalise}}, ""},
		{contract.Policy{Nameservers: []string{"10.0.0.1", "fd00::a", "10.0.0.3"}}, ""},
		{contract.Policy{Nameservers: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}}, "the API server takes 3"},
		{contract.Policy{Nameservers: []string{"dns.example.com"}}, `nameserver "dns.example.com" is no IP address`},
		{contract.Policy{Profile: "gke"}, `profile "gke" is not known`},
		{contract.Policy{Overrides: map[contract.Feature]contract.Action{"host-net": contract.Deny}}, `feature "host-net" is not in the support table`},
		{contract.Policy{Overrides: map[contract.Feature]contract.Action{"host-path": contract.Allow}}, `feature "host-path" cannot be set to "allow"`},
	} {
		err := c.policy.Validate()
		if c.says == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, c.says)
	}
}

// Host access stays out, whatever is configured: no row that guards the machine
// can be allowed.
func TestMachineIsNotUpForConfiguration(t *testing.T) {
	t.Parallel()
	for _, feature := range []contract.Feature{"host-network", "host-port", "host-pid", "host-ipc", "host-path", "volume-types", "resource-claims", "runtime-class"} {
		row, ok := contract.Lookup(feature)
		require.True(t, ok)
		for _, o := range []contract.Action{contract.Allow, contract.Warn} {
			require.False(t, slices.Contains(row.Overrides, o), "%s can be set to %s", feature, o)
		}
		require.NotEqual(t, contract.Allow, row.Agent)
	}
}
