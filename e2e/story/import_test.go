package story

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// testImports imports the cluster by the ways that people have to it, and again at another
// address. None of what opens those ways is kept anywhere.
func (s *Story) testImports(t *testing.T) {
	own, err := clientcmd.LoadFromFile(s.cluster.Kubeconfig)
	require.NoError(t, err)
	user := own.AuthInfos[own.Contexts[own.CurrentContext].AuthInfo]
	require.NotEmpty(t, user.ClientKeyData)
	s.must(t, "create", "serviceaccount", "importer")
	s.must(t, "create", "clusterrolebinding", "importer", "--clusterrole=ainode-binder", "--serviceaccount=default:importer")
	token := strings.TrimSpace(s.must(t, "create", "token", "importer"))

	t.Run("by a credential plugin", func(t *testing.T) {
		plugin := filepath.Join(t.TempDir(), "cloud-login")
		require.NoError(t, os.WriteFile(plugin, []byte(`#!/bin/sh
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"`+token+`"}}'
`), 0o700))
		file := s.changedKubeconfig(t, func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
			*user = clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
				APIVersion: "client.authentication.k8s.io/v1", Command: plugin, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			}}
		})
		require.Contains(t, s.must(t, "ainode", "import", "by-plugin", "--kubeconfig", file), "clusterconfig/by-plugin imported")
	})
	t.Run("through a proxy", func(t *testing.T) {
		proxy, through := connectProxy(t)
		file := s.changedKubeconfig(t, func(c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) { c.ProxyURL = proxy })
		require.Contains(t, s.must(t, "ainode", "import", "by-proxy", "--kubeconfig", file), "clusterconfig/by-proxy imported")
		require.Positive(t, through.Load(), "nothing went through the proxy")
		require.Equal(t, s.cluster.Server, s.serverOf(t, "by-proxy"), "machines take their own way")
	})
	t.Run("at another address", func(t *testing.T) {
		const other = "https://127.0.0.1:6443" // the certificate is made for it too
		out, err := s.typed(t.Context(), "kubectl", "ainode", "import", Config, "--node-server", other)
		require.NoError(t, err)
		for _, says := range []string{
			"clusterconfig/" + Config + " configured", "its server was " + s.cluster.Server + ", now " + other, Node + " bound before: what is bound keeps",
		} {
			require.Contains(t, out, says)
		}
		require.Equal(t, other, s.serverOf(t, Config))
		require.Equal(t, `["`+Node+`"]`, s.must(t, "get", "clusterconfig", Config, "-o", "jsonpath={.status.boundNodes}"))
		require.Contains(t, s.must(t, "ainode", "import", Config, "--dry-run=server"), "configured")
		require.Equal(t, other, s.serverOf(t, Config), "a dry run")
		require.Contains(t, s.must(t, "ainode", "import", Config), "configured")
		require.Equal(t, s.cluster.Server, s.serverOf(t, Config))
		require.Contains(t, s.must(t, "ainode", "list"), "Bound")
	})
	t.Run("nothing secret is kept", func(t *testing.T) {
		stored := s.stored(t)
		require.Contains(t, holding(stored, own.Clusters[own.Contexts[own.CurrentContext].Cluster].CertificateAuthorityData), "clusterconfigs/by-plugin",
			"this test does not see what is stored")
		for what, secret := range map[string][]byte{"token": []byte(token), "key": user.ClientKeyData, "client certificate": user.ClientCertificateData} {
			require.Empty(t, holding(stored, secret), "the %s lies on the hub", what)
		}
	})
	s.must(t, "ainode", "delete-config", "by-plugin")
	s.must(t, "ainode", "delete-config", "by-proxy")
	s.must(t, "delete", "clusterrolebinding/importer", "serviceaccount/importer")
}

func (s *Story) serverOf(t *testing.T, config string) string {
	t.Helper()
	return s.must(t, "get", "clusterconfig", config, "-o", "jsonpath={.spec.server}")
}

// connectProxy is a forward proxy as companies have it, and how often it was used.
func connectProxy(t *testing.T) (url string, through *atomic.Int32) {
	t.Helper()
	through = new(atomic.Int32)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT alone", http.StatusMethodNotAllowed)
			return
		}
		server, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		through.Add(1)
		w.WriteHeader(http.StatusOK)
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = server.Close()
			return
		}
		go func() { _, _ = io.Copy(server, buffered); _ = server.Close() }()
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL, through
}

// stored is every object that can be listed, by resource and name.
func (s *Story) stored(t *testing.T) map[string]any {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	require.NoError(t, err)
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(config).ServerPreferredResources()
	require.NoError(t, err)
	all := map[string]any{}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(t, err)
		for _, resource := range list.APIResources {
			objects, err := client.Resource(version.WithResource(resource.Name)).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err, resource.Name)
			for _, o := range objects.Items {
				all[fmt.Sprintf("%s/%s", resource.Name, strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"))] = o.Object
			}
		}
	}
	return all
}

// holding are the objects with a text somewhere in them, as it is or in base64.
func holding(objects map[string]any, text []byte) (names []string) {
	var holds func(any) bool
	holds = func(value any) bool {
		switch v := value.(type) {
		case string:
			raw, err := base64.StdEncoding.DecodeString(v)
			return strings.Contains(v, strings.TrimSpace(string(text))) || err == nil && strings.Contains(string(raw), strings.TrimSpace(string(text)))
		case []any:
			for _, v := range v {
				if holds(v) {
					return true
				}
			}
		case map[string]any:
			for k, v := range v {
				if holds(k) || holds(v) {
					return true
				}
			}
		}
		return false
	}
	for name, object := range objects {
		if holds(object) {
			names = append(names, name)
		}
	}
	return names
}
