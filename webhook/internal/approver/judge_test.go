package approver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/utils/ptr"
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
		"not a node's group alone": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Groups = append(c.Spec.Groups, "system:masters")
		}, says: `group "system:masters"`},
		"a certificate as the node": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"X509SHA256=00"}}
		}, says: "a credential of its own"},
		"a token as the node": {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.UID = "u" }, says: "a credential of its own"},
		"a second request behind it": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Request = append(c.Spec.Request, c.Spec.Request...)
		}, says: "more than one PEM block"},
		"a changed request": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			block, _ := pem.Decode(c.Spec.Request)
			block.Bytes = bytes.Replace(block.Bytes, []byte("ai-a"), []byte("ai-b"), 1)
			c.Spec.Request = pem.EncodeToMemory(block)
		}, says: "signature"},
		"another block": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Request = bytes.ReplaceAll(c.Spec.Request, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE"))
		}, says: "no PEM block"},
		"a year": {csr: func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.ExpirationSeconds = ptr.To[int32](365 * 86400)
		}, says: "outlive the binding"},
		"however long":         {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.ExpirationSeconds = nil }, says: "outlive the binding"},
		"less than nothing":    {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.ExpirationSeconds = ptr.To[int32](-1) }, says: "outlive the binding"},
		"any usage":            {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = append(c.Spec.Usages, "any") }, says: `usage "any"`},
		"cert sign":            {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = append(c.Spec.Usages, "cert sign") }, says: `usage "cert sign"`},
		"no digital signature": {csr: func(c *certificatesv1.CertificateSigningRequest) { c.Spec.Usages = c.Spec.Usages[1:] }, says: `"digital signature" is missing`},
		"a unit":               {x509: func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{"x"} }, says: "more than a common name"},
		"two common names": {x509: func(r *x509.CertificateRequest) {
			r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "system:node:ai-b"}}
		}, says: "common name"},
		"a wildcard":       {x509: func(r *x509.CertificateRequest) { r.DNSNames = []string{"*"} }, says: `"*"`},
		"a wildcard below": {x509: func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "*.ai-a") }, says: `"*.ai-a"`},
		"a name below":     {x509: func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "ai-a.example.com") }, says: "ai-a.example.com"},
		"no name":          {x509: func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "") }, says: `name ""`},
		"loopback":         {x509: func(r *x509.CertificateRequest) { r.IPAddresses = append(r.IPAddresses, net.IPv6loopback) }, says: "::1"},
		"any address":      {x509: func(r *x509.CertificateRequest) { r.IPAddresses = append(r.IPAddresses, net.IPv4zero) }, says: "0.0.0.0"},
		"a CA": {x509: func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}, says: "extension 2.5.29.19"},
		"a name of another kind": {x509: func(r *x509.CertificateRequest) { // registeredID
			r.DNSNames, r.IPAddresses = nil, nil
			r.ExtraExtensions = []pkix.Extension{{Id: subjectAltName, Value: []byte{0x30, 4, 0x88, 2, 0x2a, 3}}}
		}, says: "other kinds of names"},
		"URI":   {x509: func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, says: "URIs"},
		"email": {x509: func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }, says: "email"},
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
				ExpirationSeconds: ptr.To[int32](30 * 86400),
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
