// Package approver approves the serving certificates of AI nodes. Nobody else in a
// cluster does: kube-controller-manager approves none of this signer, and a
// cloud's approver knows its own instances only.
package approver

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// errNotOurs is of requests that some other approver may care about: no event, no
// word.
var errNotOurs = errors.New("not an AI node's serving certificate")

// notYetError is of requests that the Node may come to match: it registers, and
// gets its addresses, in the same moments as it asks for its certificate.
type notYetError struct{ what string }

func (e *notYetError) Error() string { return e.what }

func notYet(format string, args ...any) error { return &notYetError{fmt.Sprintf(format, args...)} }

// nodeOf names the AI node that asks for a serving certificate by csr.
func nodeOf(csr *certificatesv1.CertificateSigningRequest) (string, error) {
	name, ok := strings.CutPrefix(csr.Spec.Username, identity.NodeUser(""))
	if csr.Spec.SignerName != certificatesv1.KubeletServingSignerName || !ok || !contract.IsNodeName(name) {
		return "", errNotOurs
	}
	return name, nil
}

// judge says what is wrong with the request of an AI node, or nil. The certificate
// may hold the node's name and the address it is bound with, nothing else.
func judge(csr *certificatesv1.CertificateSigningRequest, node, address string) error {
	if !slices.Contains(csr.Spec.Groups, identity.NodesGroup) {
		return fmt.Errorf("the requestor is not in group %s", identity.NodesGroup)
	}
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("the request holds no PEM block of type CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return fmt.Errorf("check the request's signature: %w", err)
	}
	if request.Subject.CommonName != csr.Spec.Username {
		return fmt.Errorf("the common name %q is not the requestor", request.Subject.CommonName)
	}
	if !slices.Equal(request.Subject.Organization, []string{identity.NodesGroup}) {
		return fmt.Errorf("the organization %q is not %s alone", request.Subject.Organization, identity.NodesGroup)
	}
	if err := judgeUsages(csr.Spec.Usages); err != nil {
		return err
	}
	return judgeNames(request, node, address)
}

// judgeUsages wants what the signer wants: server auth and digital signature,
// with key encipherment or without.
func judgeUsages(usages []certificatesv1.KeyUsage) error {
	for _, u := range usages {
		if !slices.Contains([]certificatesv1.KeyUsage{
			certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth,
		}, u) {
			return fmt.Errorf("usage %q is not one of a serving certificate", u)
		}
	}
	for _, u := range []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth} {
		if !slices.Contains(usages, u) {
			return fmt.Errorf("usage %q is missing", u)
		}
	}
	return nil
}

func judgeNames(request *x509.CertificateRequest, node, address string) error {
	if len(request.URIs) > 0 || len(request.EmailAddresses) > 0 {
		return errors.New("URIs and email addresses have no place in a serving certificate")
	}
	if len(request.DNSNames)+len(request.IPAddresses) == 0 {
		return errors.New("it names no address")
	}
	for _, name := range request.DNSNames {
		if name != node {
			return fmt.Errorf("name %q is not that of node %q", name, node)
		}
	}
	for _, ip := range request.IPAddresses {
		if !ip.Equal(net.ParseIP(address)) {
			return fmt.Errorf("address %s is not %s, which node %q is bound with (moved? bind it again)", ip, address, node)
		}
	}
	return nil
}
