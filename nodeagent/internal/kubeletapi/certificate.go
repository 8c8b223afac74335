package kubeletapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"

	"github.com/ainode/ainode/api/identity"
)

// NewCertificates keeps a serving certificate for node at address, signed by the
// target through a CSR that our webhook program approves, and kept in dir. It
// renews by itself between Start and Stop.
func NewCertificates(ctx context.Context, client kubernetes.Interface, node, address, dir string) (certificate.Manager, error) {
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
	})
	if err != nil {
		return nil, fmt.Errorf("make the serving certificate's manager: %w", err)
	}
	return manager, nil
}
