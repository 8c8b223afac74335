// Package certs keeps the webhook's serving certificate: a small authority in a
// Secret that all replicas share, its CA in our webhook configurations, and the
// current certificate in memory for the TLS handshake. A replica serves seconds
// after its start, no file is mounted, and no handshake fails while the CA is
// replaced: a new CA is trusted for a while before anything is signed with it.
package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Keys of the Secret.
const (
	keyCACert = "ca.crt" // PEM, newest first; what webhook configurations trust
	keyCAKey  = "ca.key" // of the newest
	keyCert   = "tls.crt"
	keyKey    = "tls.key"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// lead is how long before its end a certificate is replaced, as a part of its life.
	lead = 3
	// settle is how long a new CA is only trusted, so that every API server knows
	// it before a certificate of it is shown.
	settle = time.Hour
	// skew is taken off notBefore for clocks that are behind.
	skew = 5 * time.Minute
)

// Renew looks at the Secret's data and returns what should be there instead, and
// whether that differs. Data that can't be read counts as absent. Without the CA's
// key a new CA is made: taking ca.key out of the Secret is how to ask for one.
func Renew(data map[string][]byte, names []string, now time.Time) (map[string][]byte, bool, error) {
	cas := valid(parse(data[keyCACert]), now)
	key, err := parseKey(data[keyCAKey])
	if len(cas) == 0 || err != nil || !cas[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		key = nil // a bundle without its key signs nothing, but is trusted on: what it signed is being shown
	}
	if key == nil || due(cas[0], now) {
		ca, caKey, err := newCA(now)
		if err != nil {
			return nil, false, err
		}
		cas, key = append([]*x509.Certificate{ca}, cas...), caKey
	}
	cert, leafKey := data[keyCert], data[keyKey]
	if !serves(cert, leafKey, cas, names, now) {
		if cert, leafKey, err = newLeaf(cas[0], key, names, now); err != nil {
			return nil, false, err
		}
	}
	rawKey, err := encodeKey(key)
	if err != nil {
		return nil, false, err
	}
	renewed := map[string][]byte{keyCACert: encode(cas), keyCAKey: rawKey, keyCert: cert, keyKey: leafKey}
	for name, value := range renewed {
		if !bytes.Equal(value, data[name]) {
			return renewed, true, nil
		}
	}
	return renewed, false, nil
}

// serves reports whether the certificate is one to go on with.
func serves(certPEM, keyPEM []byte, cas []*x509.Certificate, names []string, now time.Time) bool {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false
	}
	if due(pair.Leaf, now) {
		return false
	}
	for _, name := range names {
		if pair.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	if pair.Leaf.CheckSignatureFrom(cas[0]) == nil {
		return true
	}
	// Signed by an older CA: goes on until the newest is known everywhere.
	settled := now.After(cas[0].NotBefore.Add(skew + settle))
	for _, ca := range cas[1:] {
		if !settled && pair.Leaf.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

// due reports whether less than a third of the certificate's life is left.
func due(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / lead))
}

func newCA(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a CA key: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "ainode-webhook-ca"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := sign(template, template, key.Public(), key)
	return cert, key, err
}

func newLeaf(ca *x509.Certificate, caKey crypto.Signer, names []string, now time.Time) (cert, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a serving key: %w", err)
	}
	leaf, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return encode([]*x509.Certificate{leaf}), keyPEM, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func valid(certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, c := range certs {
		if now.Before(c.NotAfter) && c.IsCA {
			kept = append(kept, c)
		}
	}
	return kept
}

func parse(raw []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return certs
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, cert)
		}
	}
}

func encode(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

func parseKey(raw []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("decode the CA key: no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("decode the CA key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("decode the CA key: it cannot sign")
	}
	return signer, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
