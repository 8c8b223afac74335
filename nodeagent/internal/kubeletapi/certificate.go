package kubeletapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/identity"
)

// unsigned is how long a signed certificate is waited for before one of our own takes
// its place: our approver takes a moment, and a person may take for ever.
const unsigned = 30 * time.Second

// Certificates are what :10250 is served with: one that the target signed, or where
// nobody approves that, one of our own. An API server that checks nodes' certificates
// (--kubelet-certificate-authority) refuses the latter; most don't, and then logs and
// exec work all the same.
type Certificates struct {
	signed certificate.Manager
	node   string
	ip     net.IP
	clock  clock.PassiveClock
	began  time.Time

	mu  sync.Mutex
	own *tls.Certificate
}

// NewCertificates keeps a serving certificate for node at address, signed by the
// target through a CSR that our webhook program approves, and kept in dir. It
// renews by itself between Start and Stop.
func NewCertificates(ctx context.Context, client kubernetes.Interface, node, address, dir string, now clock.PassiveClock) (*Certificates, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the serving certificate: %w", err)
	}
	store, err := certificate.NewFileStore("kubelet-server", dir, dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("open the serving certificate's store: %w", err)
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return nil, fmt.Errorf("make a serving certificate: %q is no IP address", address)
	}
	manager, err := certificate.NewManager(&certificate.Config{
		Ctx:         &ctx,
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return client, nil },
		Template: &x509.CertificateRequest{
			Subject:     pkix.Name{CommonName: identity.NodeUser(node), Organization: []string{identity.NodesGroup}},
			DNSNames:    []string{node},
			IPAddresses: []net.IP{ip},
		},
		SignerName:       certificatesv1.KubeletServingSignerName,
		GetUsages:        certificate.DefaultKubeletServingGetUsages,
		CertificateStore: store,

		RequestedCertificateLifetime: ptr.To(identity.ServingCertificateLife),
	})
	if err != nil {
		return nil, fmt.Errorf("make the serving certificate's manager: %w", err)
	}
	return &Certificates{signed: manager, node: node, ip: ip, clock: now, began: now.Now()}, nil
}

// Start begins to ask for what is missing or near its end.
func (c *Certificates) Start() { c.signed.Start() }

// Stop ends that.
func (c *Certificates) Stop() { c.signed.Stop() }

// SelfSigned reports whether a signed certificate was waited for in vain.
func (c *Certificates) SelfSigned() bool {
	return c.signed.Current() == nil && c.clock.Since(c.began) >= unsigned
}

// Signed reports whether there is one that the target signed.
func (c *Certificates) Signed() bool { return c.signed.Current() != nil }

// Current is the certificate to serve with now, nil while a signed one may still come.
func (c *Certificates) Current() *tls.Certificate {
	if signed := c.signed.Current(); signed != nil {
		return signed
	}
	if !c.SelfSigned() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == nil {
		own, err := selfSigned(c.node, c.ip)
		if err != nil {
			klog.Background().Error(err, "No serving certificate")
			return nil
		}
		klog.Background().Info("Nobody signed a serving certificate; serving with one of our own", "node", c.node)
		c.own = own
	}
	return c.own
}

// selfSigned makes a certificate that nobody vouches for. Its key is in memory alone.
func selfSigned(node string, ip net.IP) (*tls.Certificate, error) {
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey(node, []net.IP{ip}, nil)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	return &pair, nil
}
