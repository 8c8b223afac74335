package kube

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestWhatAnAPIServerMeetsOnItsWayToANode(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct{ unreached, untrusted, refused bool }{
		"error trying to reach service: dial tcp 10.9.0.5:10250: i/o timeout":                                             {true, false, false},
		"error trying to reach service: dial tcp 10.9.0.5:10250: connect: no route to host":                               {true, false, false},
		"error trying to reach service: dial tcp 10.9.0.5:10250: connect: connection refused":                             {false, false, true},
		"error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority": {false, true, false},
		"error trying to reach service: remote error: tls: internal error":                                                {false, true, false},
		`nodes "ai-1" is forbidden: User "kim" cannot get resource "nodes/proxy" in API group "" at the cluster scope`:    {false, false, false},
	} {
		answer := apierrors.NewServiceUnavailable(text)
		require.Equal(t, c.unreached, Unreached(answer), text)
		require.Equal(t, c.untrusted, Untrusted(answer), text)
		require.Equal(t, c.refused, Refused(answer), text)
		// The same on the way to the API server says nothing of the node.
		require.False(t, Unreached(errors.New(text)) || Untrusted(errors.New(text)) || Refused(errors.New(text)), text)
	}
	require.True(t, Unreached(fmt.Errorf("get: %w", context.DeadlineExceeded)))
	require.False(t, Unreached(nil) || Untrusted(nil))
}
