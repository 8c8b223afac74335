package story

import (
	"path/filepath"
	"testing"

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
	for name, bad := range map[string]struct {
		change func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo)
		says   string
	}{
		"a credential plugin that is not installed": {plugin("cloud-login-that-is-not-here"), "cloud-login-that-is-not-here not found"},
		"a credential plugin that fails":            {plugin("false"), "false failed with exit code 1"},
		"another CA": {func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.CertificateAuthorityData = stranger
		}, "unknown authority"},
		"a token that is none": {func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
			*user = clientcmdapi.AuthInfo{Token: "stale"}
		}, "kubectl auth whoami"},
		"a proxy that is not there": {func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.ProxyURL = "http://127.0.0.1:1"
		}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			out := s.refused(t, "ainode", "import", "bad", "--kubeconfig", s.changedKubeconfig(t, bad.change))
			require.Contains(t, out, bad.says)
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
