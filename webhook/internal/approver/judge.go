// Package approver approves the serving certificates of AI nodes. Nobody else in a
// cluster does: kube-controller-manager approves none of this signer, and a
// cloud's approver knows its own instances only.
package approver

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/utils/ptr"

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
	if err := judgeRequestor(csr.Spec); err != nil {
		return err
	}
	block, rest := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("the request holds no PEM block of type CERTIFICATE REQUEST")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("the request holds more than one PEM block")
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
	if len(request.Subject.Names) != 2 {
		return fmt.Errorf("the subject %q holds more than a common name and an organization", request.Subject)
	}
	if err := judgeUsages(csr.Spec.Usages); err != nil {
		return err
	}
	if asked := ptr.Deref(csr.Spec.ExpirationSeconds, 0); asked <= 0 || asked > int32(identity.ServingCertificateLife/time.Second) {
		return fmt.Errorf("it asks for %s: a serving certificate is asked for by days, %s at most, or it would outlive the binding by far",
			time.Duration(asked)*time.Second, identity.ServingCertificateLife)
	}
	if err := judgeExtensions(request); err != nil {
		return err
	}
	return judgeNames(request, node, address)
}

// judgeRequestor wants the account that bind made, acting as the node: in the node's
// groups and no other, and with nothing that a certificate or a token of one's own
// brings along. Such a credential would outlive the binding.
func judgeRequestor(spec certificatesv1.CertificateSigningRequestSpec) error {
	if !slices.Contains(spec.Groups, identity.NodesGroup) {
		return fmt.Errorf("the requestor is not in group %s", identity.NodesGroup)
	}
	for _, group := range spec.Groups {
		if group != identity.NodesGroup && group != allAuthenticated {
			return fmt.Errorf("the requestor is in group %q, which no node is", group)
		}
	}
	if len(spec.Extra) > 0 || spec.UID != "" {
		return errors.New("the requestor is not the node's account: it has a credential of its own as the node")
	}
	return nil
}

// allAuthenticated is the group that an API server puts everybody into.
const allAuthenticated = "system:authenticated"

// subjectAltName is the one extension of a request that has a place here (RFC 5280,
// 4.2.1.6), and the tags of what it may hold.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

const tagDNSName, tagIPAddress = 2, 7

// judgeExtensions wants names and addresses and nothing beside them: what a signer makes
// of the rest (a CA's constraints, names of a kind that Go does not read) is its matter.
func judgeExtensions(request *x509.CertificateRequest) error {
	seen := false
	for _, extension := range request.Extensions {
		if !extension.Id.Equal(subjectAltName) || seen {
			return fmt.Errorf("extension %s has no place in it, or stands there twice", extension.Id)
		}
		seen = true
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &names); err != nil || len(rest) > 0 {
			return errors.New("its names can't be read")
		}
		for _, name := range names {
			if name.Class != asn1.ClassContextSpecific || name.Tag != tagDNSName && name.Tag != tagIPAddress {
				return errors.New("URIs, email addresses and other kinds of names have no place in a serving certificate")
			}
		}
	}
	return nil
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
