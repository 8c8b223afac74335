package contract_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ainode/ainode/api/contract"
)

// A policy that asks for what the API server gives anyway changes nothing.
func TestUnreachableSecondsOfTheAPIServer(t *testing.T) {
	t.Parallel()
	pod, err := contract.Decode([]byte(`{"spec":{"nodeName":"ai-a","dnsPolicy":"Default","tolerations":[{"operator":"Exists"},
		{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]}}`))
	require.NoError(t, err)
	for seconds, changes := range map[int64]int{0: 0, 300: 0, 301: 1} {
		v, err := contract.Request{Pod: pod, Policy: contract.Policy{UnreachableSeconds: seconds}}.Evaluate()
		require.NoError(t, err)
		require.Len(t, v.Findings, changes, "%d s", seconds)
	}
}

// Tokens stay where the profile agent is told so, and nowhere else; a mode that is set
// for the row wins.
func TestNamespacesThatKeepTheirTokens(t *testing.T) {
	t.Parallel()
	const spec = `{"metadata":{"namespace":%q},"spec":{"nodeName":"ai-a","dnsPolicy":"Default","tolerations":[{"operator":"Exists"}],
		"volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}`
	named := contract.Policy{Profile: contract.ProfileAgent, TokenNamespaces: []string{"a"}}
	denied := named
	denied.Overrides = map[contract.Feature]contract.Action{"service-account-token": contract.Deny}
	for _, c := range []struct {
		policy    contract.Policy
		namespace string
		findings  int
	}{{named, "a", 0}, {named, "b", 1}, {denied, "a", 1}, {contract.Policy{Profile: contract.ProfileAgent}, "a", 1}} {
		require.NoError(t, c.policy.Validate())
		pod, err := contract.Decode([]byte(fmt.Sprintf(spec, c.namespace)))
		require.NoError(t, err)
		v, err := contract.Request{Pod: pod, Policy: c.policy}.Evaluate()
		require.NoError(t, err)
		require.Len(t, v.Findings, c.findings, "%v", c)
	}
	require.ErrorContains(t, contract.Policy{TokenNamespaces: []string{"a"}}.Validate(), `only in the profile "agent"`)
}

// A kernel setting that is the machine's goes; what is no name of one at all stays, and
// the API server refuses the pod as it does elsewhere.
func TestNamesThatNoSysctlHas(t *testing.T) {
	t.Parallel()
	pod, err := contract.Decode([]byte(`{"spec":{"nodeName":"ai-a","dnsPolicy":"Default","tolerations":[{"operator":"Exists"}],
		"securityContext":{"sysctls":[{"name":"foo-"},{"name":"kernel.shmmax"},{"name":"kernel.shm_rmid_forced"},{"name":"bar.."}]}}}`))
	require.NoError(t, err)
	v, err := contract.Request{Pod: pod, Policy: contract.Policy{Profile: contract.ProfileAgent}}.Evaluate()
	require.NoError(t, err)
	require.Len(t, v.Findings, 1)
	require.Equal(t, "spec.securityContext.sysctls[1]", v.Findings[0].Field)
}
