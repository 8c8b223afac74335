package story

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
)

// testKubeconfigs imports by kubeconfigs as people have them. What can't be used is
// told in kubectl's own words and leaves nothing behind.
func (s *Story) testKubeconfigs(t *testing.T) {
	stranger, _, err := cert.GenerateSelfSignedCertKey("elsewhere", nil, nil)
	require.NoError(t, err)
	plugin := func(command string) func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo) {
		return func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
			*user = clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
				APIVersion: "client.authentication.k8s.io/v1", Command: command, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			}}
		}
	}
	const seen = "kubectl config view --minify"
	for name, bad := range map[string]struct {
		change func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo)
		says   string
		next   string
	}{
		"a credential plugin that is not installed": {plugin("cloud-login-that-is-not-here"), "cloud-login-that-is-not-here not found", seen},
		"a credential plugin that fails":            {plugin("false"), "false failed with exit code 1", seen},
		"another CA": {func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.CertificateAuthorityData = stranger
		}, "unknown authority", seen},
		"a client certificate that has ended": {func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
			user.ClientCertificateData, user.ClientKeyData = s.endedCertificate(t)
		}, "has a client certificate for the target cluster that ended 2026-01-02T03:04:05Z", "kubectl auth whoami"},
		"a token that is none": {func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
			*user = clientcmdapi.AuthInfo{Token: "stale"}
		}, "You must be logged in to the server", "kubectl auth whoami"},
		"a proxy that is not there": {func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.ProxyURL = "http://127.0.0.1:1"
		}, "refused", seen},
	} {
		t.Run(name, func(t *testing.T) {
			out := s.refused(t, "ainode", "import", "bad", "--kubeconfig", s.changedKubeconfig(t, bad.change))
			require.Contains(t, out, bad.says)
			require.Contains(t, out, bad.next)
			require.NotContains(t, out, "stale")
		})
	}
	t.Run("no CA, as many have it", func(t *testing.T) {
		file := s.changedKubeconfig(t, func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.CertificateAuthorityData, c.InsecureSkipTLSVerify = nil, true
		})
		require.Contains(t, s.must(t, "ainode", "import", Config, "--kubeconfig", file, "--dry-run=client"), "unchanged",
			"machines trust the CA that the cluster publishes")
	})
	require.NotContains(t, s.must(t, "ainode", "configs", "-o", "name"), "bad")
}

// endedCertificate is an administrator's of last winter.
func (s *Story) endedCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	authority, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "certs", "ca.crt"), filepath.Join(s.Dir, "certs", "ca.key"))
	require.NoError(t, err)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ended := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		NotBefore: ended.AddDate(-1, 0, 0), NotAfter: ended, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority.Leaf, own.Public(), authority.PrivateKey)
	require.NoError(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (s *Story) changedKubeconfig(t *testing.T, change func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo)) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(s.cluster.Kubeconfig)
	require.NoError(t, err)
	current := config.Contexts[config.CurrentContext]
	change(config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo])
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, file))
	return file
}
