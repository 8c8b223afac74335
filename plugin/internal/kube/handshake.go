package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/ainode/ainode/plugin/internal/remedy"
)

// handshakePatience is how long an API server may take to greet.
const handshakePatience = 3 * time.Second

// UntrustedError says that the certificate shown at an address is not what its CA and name
// vouch for: no machine could ever connect.
type UntrustedError struct {
	Server string
	Err    error
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s does not show a certificate that an AI node could trust: %v", e.Server, e.Err)
}

// Unwrap is the verification's own error.
func (e *UntrustedError) Unwrap() error { return e.Err }

// Handshake greets the API server at a as a machine would: straight, whatever proxy
// the kubeconfig names, and trusting a's CA alone. It is an UntrustedError where the
// certificate is wrong; any other error says that it was not reached from here, which
// says little about the machines.
func Handshake(ctx context.Context, a Address) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CAData) {
		return &UntrustedError{Server: a.Server, Err: errors.New("the CA holds no certificate in PEM form")}
	}
	u, err := url.Parse(a.Server)
	if err != nil {
		return err
	}
	port, name := u.Port(), a.TLSServerName
	if port == "" {
		port = "443"
	}
	if name == "" {
		name = u.Hostname()
	}
	ctx, cancel := context.WithTimeout(ctx, handshakePatience)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if wrong := new(tls.CertificateVerificationError); errors.As(err, &wrong) {
		return &UntrustedError{Server: a.Server, Err: wrong.Err}
	}
	if err != nil {
		return err
	}
	return connection.Close()
}

// Greeted tries an address as a machine will: the person's own way to the cluster
// may lead through a proxy, or trust any certificate. unreached is why it was not
// reached from here. flag names the flag that gives a's server, for the error.
func (c *Cluster) Greeted(ctx context.Context, a Address, flag string) (unreached, err error) {
	if c.Greet == nil {
		return nil, nil
	}
	var untrusted *UntrustedError
	switch unreached = c.Greet(ctx, a); {
	case !errors.As(unreached, &untrusted):
		return unreached, nil
	case len(c.Config.CAData) == 0 && c.Config.CAFile == "":
		return nil, remedy.New("Name the CA of what answers there", "--certificate-authority FILE", "%w", untrusted)
	}
	return nil, remedy.New("Name an address that its certificate is made for", flag+" https://HOST:PORT", "%w", untrusted)
}
