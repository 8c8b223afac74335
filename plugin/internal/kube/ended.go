package kube

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// ended is when the client certificate of cfg has ended, or zero if it has none that has.
// An API server answers such a one like somebody who never logged in.
func ended(cfg *rest.Config, now time.Time) time.Time {
	data := cfg.CertData
	if len(data) == 0 && cfg.CertFile != "" {
		data, _ = os.ReadFile(cfg.CertFile) // a client that can't be made of it says so
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return time.Time{}
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !now.After(certificate.NotAfter) {
		return time.Time{}
	}
	return certificate.NotAfter
}
