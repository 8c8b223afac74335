package kube

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
)

func TestEnded(t *testing.T) {
	t.Parallel()
	data, _, err := cert.GenerateSelfSignedCertKey("kim", nil, nil) // good for a year
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "kim.crt")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	now := time.Now()
	for name, c := range map[string]struct {
		how   rest.TLSClientConfig
		at    time.Time
		ended bool
	}{
		"good":                        {rest.TLSClientConfig{CertData: data}, now, false},
		"ended":                       {rest.TLSClientConfig{CertData: data}, now.AddDate(2, 0, 0), true},
		"a file's, ended":             {rest.TLSClientConfig{CertFile: file}, now.AddDate(2, 0, 0), true},
		"none":                        {rest.TLSClientConfig{}, now, false},
		"a file that is not there":    {rest.TLSClientConfig{CertFile: file + "x"}, now, false},
		"no certificate":              {rest.TLSClientConfig{CertData: []byte("junk")}, now, false},
		"no certificate in the PEM":   {rest.TLSClientConfig{CertData: []byte("-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n")}, now, false},
		"a CA that ended, and nobody": {rest.TLSClientConfig{CAData: data}, now.AddDate(2, 0, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.ended, !ended(&rest.Config{TLSClientConfig: c.how}, c.at).IsZero())
		})
	}
}
