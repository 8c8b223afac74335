package preflight

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRightReadsAsItIsAskedFor(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Right{
		"list pods": {Verb: "list", Resource: "pods"},
		`create serviceaccounts/token "x" -n ainode-system`: {Verb: "create", Resource: "serviceaccounts", Subresource: "token", Name: "x", Namespace: "ainode-system"},
		"create clusterroles.rbac.authorization.k8s.io":     {Verb: "create", Resource: "clusterroles", Group: "rbac.authorization.k8s.io"},
	} {
		require.Equal(t, want, r.String())
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	require.Equal(t, "kim-example-com", short("Kim@example.com"))
	require.Equal(t, "system-serviceaccount-a-b", short("system:serviceaccount:a:b"))
}

func TestQuoted(t *testing.T) {
	t.Parallel()
	require.Equal(t, `'kim'`, quoted("kim"))
	require.Equal(t, `'$(reboot)'\''"'`, quoted(`$(reboot)'"`), "a name that an identity provider lets people choose is not run")
}
