package certs

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
)

func TestIssuedCertificateIsForItsNamesAndByItsAuthority(t *testing.T) {
	f := Folder(t.TempDir())
	ca, err := f.NewAuthority("ca", "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Issue(ca, "server", Request{User: "u", Groups: []string{"g"}, Names: []string{"example.com", "10.1.2.3"}, Server: true}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert("server"), f.Key("server"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	for name, good := range map[string]bool{"example.com": true, "10.1.2.3": true, "10.1.2.4": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a server's certificate passes for a client's")
	}
	if leaf.Subject.CommonName != "u" || leaf.Subject.Organization[0] != "g" {
		t.Errorf("subject is %s", leaf.Subject)
	}
	info, err := os.Stat(f.Key("server"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}
