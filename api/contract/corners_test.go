package contract_test

import (
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
