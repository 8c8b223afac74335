package kube

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatAnAPIServerMeetsOnItsWayToANode(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct{ unreached, untrusted bool }{
		"error trying to reach service: dial tcp 10.9.0.5:10250: i/o timeout":                                             {true, false},
		"error trying to reach service: dial tcp 10.9.0.5:10250: connect: no route to host":                               {true, false},
		"error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority": {false, true},
		"error trying to reach service: remote error: tls: internal error":                                                {false, true},
		`nodes "ai-1" is forbidden: User "kim" cannot get resource "nodes/proxy" in API group "" at the cluster scope`:    {false, false},
	} {
		require.Equal(t, c.unreached, Unreached(errors.New(text)), text)
		require.Equal(t, c.untrusted, Untrusted(errors.New(text)), text)
	}
	require.True(t, Unreached(fmt.Errorf("get: %w", context.DeadlineExceeded)))
	require.False(t, Unreached(nil) || Untrusted(nil))
}
