package kube

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/util/cert"
)

// TestHandshake is of what an import must find out before a machine does.
func TestHandshake(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	good := Address{
		Server: server.URL,
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	require.NoError(t, Handshake(t.Context(), good))
	named := good
	named.TLSServerName = "example.com" // a name of httptest's certificate
	require.NoError(t, Handshake(t.Context(), named))

	var untrusted *UntrustedError
	named.TLSServerName = "kubernetes.elsewhere"
	require.ErrorAs(t, Handshake(t.Context(), named), &untrusted)
	stranger, _, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	require.NoError(t, err)
	err = Handshake(t.Context(), Address{Server: server.URL, CAData: stranger})
	require.ErrorAs(t, err, &untrusted)
	require.ErrorContains(t, err, "unknown authority")
	require.ErrorAs(t, Handshake(t.Context(), Address{Server: server.URL, CAData: []byte("no PEM")}), &untrusted)

	server.Close()
	err = Handshake(t.Context(), good)
	require.Error(t, err)
	require.NotErrorAs(t, err, &untrusted, "silence says nothing of the certificate")
}
