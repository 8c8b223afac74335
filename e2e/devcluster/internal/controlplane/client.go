package controlplane

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// Client is the administrator's: three requests need no client library.
func Client(l layout.Layout) (*http.Client, error) {
	f := folder(l)
	pair, err := tls.LoadX509KeyPair(f.Cert("admin"), f.Key("admin"))
	if err != nil {
		return nil, fmt.Errorf("loading the administrator's certificate: %w", err)
	}
	ca, err := os.ReadFile(f.Cert("ca"))
	if err != nil {
		return nil, fmt.Errorf("loading the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			Proxy:           nil, // the cluster is on this machine
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

// NodeReady tells whether a node says so of itself, and if not, why not.
func NodeReady(client *http.Client, plan subnet.Plan, name string) (bool, string) {
	response, err := client.Get(Server(plan) + "/api/v1/nodes/" + name)
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false, "the API server answers " + response.Status
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&node); err != nil {
		return false, err.Error()
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", condition.Message
		}
	}
	return false, "it has no Ready condition yet"
}

// DefaultAccountExists tells whether pods can be created in namespace default.
func DefaultAccountExists(client *http.Client, plan subnet.Plan) bool {
	response, err := client.Get(Server(plan) + "/api/v1/namespaces/default/serviceaccounts/default")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// GrantKubeletAccess lets the API server use the kubelets' API: logs, exec and
// the rest. It is no administrator for that.
func GrantKubeletAccess(client *http.Client, plan subnet.Plan) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
		"metadata": map[string]string{"name": "devcluster:" + kubeletClient},
		"roleRef":  map[string]string{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
		"subjects": []map[string]string{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": kubeletClient}},
	})
	if err != nil {
		return err
	}
	response, err := client.Post(Server(plan)+"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("granting the API server access to kubelets: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated && response.StatusCode != http.StatusConflict {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		return fmt.Errorf("granting the API server access to kubelets: %s: %s", response.Status, text)
	}
	return nil
}
