package approver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
)

func request(t *testing.T, template x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func good() x509.CertificateRequest {
	return x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "system:node:ai-a", Organization: []string{"system:nodes"}},
		DNSNames:    []string{"ai-a"},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.5")},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		csr  func(*certificatesv1.CertificateSigningRequest)
		x509 func(*x509.CertificateRequest)
		says string // "" is approved
	}{
		"good": {},
		"key encipherment": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Usages = append(c.Spec.Usages, "key encipherment")
		}},
		"address alone":      {x509: func(r *x509.CertificateRequest) { r.DNSNames = nil }},
		"not a node's group": {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Groups = []string{"system:authenticated"} }, says: "not in group"},
		"client auth": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Usages = append(c.Spec.Usages, "client auth")
		}, says: `usage "client auth"`},
		"no server auth":     {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = c.Spec.Usages[:1] }, says: `"server auth" is missing`},
		"no PEM":             {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Request = []byte("x") }, says: "no PEM block"},
		"another's name":     {x509: func(r *x509.CertificateRequest) { r.Subject.CommonName = "system:node:ai-b" }, says: "common name"},
		"another group":      {x509: func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }, says: "organization"},
		"two groups":         {x509: func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }, says: "organization"},
		"no names":           {x509: func(r *x509.CertificateRequest) { r.DNSNames, r.IPAddresses = nil, nil }, says: "names no address"},
		"another's address":  {x509: func(r *x509.CertificateRequest) { r.IPAddresses = append(r.IPAddresses, net.ParseIP("10.0.0.6")) }, says: "10.0.0.6"},
		"the API server":     {x509: func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "kubernetes.default.svc") }, says: "kubernetes.default.svc"},
		"an address as name": {x509: func(r *x509.CertificateRequest) { r.DNSNames = []string{"10.0.0.5"} }, says: "10.0.0.5"},
		"URI":                {x509: func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, says: "URIs"},
		"email":              {x509: func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }, says: "email"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := good()
			if c.x509 != nil {
				c.x509(&template)
			}
			csr := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
				SignerName: certificatesv1.KubeletServingSignerName, Username: "system:node:ai-a",
				Groups: []string{"system:nodes", "system:authenticated"},
				Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"}, Request: request(t, template),
			}}
			if c.csr != nil {
				c.csr(csr)
			}
			err := judge(csr, "ai-a", "10.0.0.5")
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestNodeOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ signer, user, want string }{
		{certificatesv1.KubeletServingSignerName, "system:node:ai-a", "ai-a"},
		{certificatesv1.KubeletServingSignerName, "system:node:node-1", ""},
		{certificatesv1.KubeletServingSignerName, "system:node:ai-", ""},
		{certificatesv1.KubeletServingSignerName, "ai-a", ""},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:ai-a", ""},
	} {
		got, err := nodeOf(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: c.signer, Username: c.user}})
		require.Equal(t, c.want, got)
		require.Equal(t, c.want == "", err != nil)
	}
}
