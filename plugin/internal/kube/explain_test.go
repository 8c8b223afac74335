package kube

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/ainode/ainode/plugin/internal/remedy"
)

// A hub without the chart answers 404 for one record as for all: it is told as the
// chart that is missing, never as the record.
func TestHubWithoutRecordsIsTold(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	hub, err := Connect("hub", &rest.Config{Host: server.URL})
	require.NoError(t, err)

	_, one := hub.AINode(t.Context(), "ai-1")
	_, all := hub.AINodes(t.Context())
	_, config := hub.ClusterConfig(t.Context(), "prod")
	for _, err := range []error{one, all, config} {
		require.ErrorContains(t, err, "this cluster holds no AI-node records")
		require.False(t, apierrors.IsNotFound(err))
		require.Len(t, remedy.Lines(err), 1)
	}
}
