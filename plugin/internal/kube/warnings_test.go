package kube

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestQuietly(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Warning", `299 - "mind this"`)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion": "v1", "kind": "Namespace"}`))
	}))
	defer server.Close()
	var told bytes.Buffer
	core, err := kubernetes.NewForConfig(NewFlags("test", &told, false).own(&rest.Config{Host: server.URL}))
	require.NoError(t, err)
	_, err = core.CoreV1().Namespaces().Get(Quietly(context.Background()), "a", metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, told.String())
	_, err = core.CoreV1().Namespaces().Get(context.Background(), "a", metav1.GetOptions{})
	require.NoError(t, err)
	require.Contains(t, told.String(), "mind this")
}
