package story

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/identity"
)

// wanted is a serving certificate that somebody asks for in the node's name.
type wanted struct {
	names   []string
	ips     []net.IP
	subject pkix.Name
	usages  []certificatesv1.KeyUsage
	life    time.Duration
}

// testCertificates asks, as the node itself, for serving certificates that it must not get.
// Nobody signs them, and an event says why; the right one is signed.
func (s *Story) testCertificates(t *testing.T, a accounts) {
	here := net.ParseIP(s.cluster.Machines[0].Address)
	right := func() wanted {
		return wanted{
			names: []string{Node}, ips: []net.IP{here}, subject: pkix.Name{CommonName: identity.NodeUser(Node), Organization: []string{identity.NodesGroup}},
			usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}, life: 24 * time.Hour,
		}
	}
	attacks := map[string]struct {
		by     kubernetes.Interface
		change func(*wanted)
		why    string // nothing: it is left to others without a word
	}{
		"another's address": {a.node, func(w *wanted) { w.ips = append(w.ips, net.ParseIP(s.cluster.Node.Address)) },
			fmt.Sprintf("address %s is not %s", s.cluster.Node.Address, here)},
		"another's name":      {a.node, func(w *wanted) { w.names = append(w.names, "kubernetes.default.svc") }, `name "kubernetes.default.svc" is not that of node`},
		"a group of its own":  {a.node, func(w *wanted) { w.subject.Organization = append(w.subject.Organization, "system:masters") }, "is not system:nodes alone"},
		"good for a client":   {a.node, func(w *wanted) { w.usages = append(w.usages, certificatesv1.UsageClientAuth) }, `usage "client auth" is not one of a serving certificate`},
		"good for years":      {a.node, func(w *wanted) { w.life = 400 * 24 * time.Hour }, "it would outlive the binding by far"},
		"good for no address": {a.node, func(w *wanted) { w.names, w.ips = nil, nil }, "it names no address"},
		"by somebody else":    {a.admin, func(*wanted) {}, ""},
	}
	// The API server lets no node ask in another's name.
	other := right()
	other.subject.CommonName = identity.NodeUser("node-1")
	_, err := ask(t, a.node, other)
	require.ErrorContains(t, err, "can only create a node CSR with CN="+identity.NodeUser(Node))
	requests := map[string]string{}
	for what, attack := range attacks {
		w := right()
		attack.change(&w)
		request, err := ask(t, attack.by, w)
		require.NoError(t, err, what)
		requests[what] = request
	}
	signed, err := ask(t, a.node, right())
	require.NoError(t, err)

	csr := func(name string) *certificatesv1.CertificateSigningRequest {
		request, err := a.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		return request
	}
	eventually(t, 2*time.Minute, "the right one is signed", func() (bool, string) {
		is := csr(signed)
		return len(is.Status.Certificate) > 0, fmt.Sprint(is.Status.Conditions)
	})
	block, _ := pem.Decode(csr(signed).Status.Certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, []string{Node}, certificate.DNSNames)
	require.Len(t, certificate.IPAddresses, 1)
	require.True(t, certificate.IPAddresses[0].Equal(here))
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, certificate.ExtKeyUsage)

	for what, name := range requests {
		if why := attacks[what].why; why != "" {
			eventually(t, 2*time.Minute, what+": it is told why", func() (bool, string) {
				events, err := a.admin.CoreV1().Events("").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
				require.NoError(t, err)
				for _, e := range events.Items {
					if e.Type == corev1.EventTypeWarning && e.Reason == "NotApproved" && strings.Contains(e.Message, why) {
						return true, ""
					}
				}
				return false, fmt.Sprint(events.Items)
			})
		}
		require.Empty(t, csr(name).Status, what)
	}
	s.must(t, "delete", "csr", requests["by somebody else"]) // the others go with the binding
}

// ask makes a request for a certificate.
func ask(t *testing.T, by kubernetes.Interface, w wanted) (name string, err error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: w.subject, DNSNames: w.names, IPAddresses: w.ips}, key)
	require.NoError(t, err)
	request, err := by.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeletServingSignerName, Usages: w.usages, ExpirationSeconds: ptr.To(int32(w.life / time.Second)),
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return request.Name, nil
}
