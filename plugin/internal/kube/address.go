package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Address is how a machine, rather than a person, reaches a cluster.
type Address struct {
	Server        string
	TLSServerName string
	CAData        []byte
}

// Address tells how machines reach c: at server, or where the person does if server
// is empty. flag names the flag that gives server, for the error.
func (c *Cluster) Address(ctx context.Context, server, flag string) (Address, error) {
	a := Address{Server: server, TLSServerName: c.Config.ServerName}
	if a.Server == "" {
		a.Server = c.Config.Host
		if u, err := url.Parse(a.Server); err == nil && isLoopback(u.Hostname()) {
			return a, remedy.New("Name the address that the machines reach", flag+" https://HOST:PORT",
				"the kubeconfig reaches the %s cluster at %s, which is this computer only: AI nodes can't", c.Name, a.Server)
		}
	}
	u, err := url.Parse(a.Server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return a, fmt.Errorf("%s is no https URL of an API server (%s https://HOST:PORT)", a.Server, flag)
	}
	if u.User != nil {
		return a, fmt.Errorf("the URL of %s holds a user: AI nodes are given an identity of their own (%s https://HOST:PORT)", flag, flag)
	}
	a.CAData, err = c.authority(ctx)
	return a, err
}

// authority is the CA that the API server's certificate is checked with: the
// kubeconfig's, or what the cluster itself publishes.
func (c *Cluster) authority(ctx context.Context) ([]byte, error) {
	if data := c.Config.CAData; len(data) > 0 {
		return data, nil
	}
	if file := c.Config.CAFile; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the %s cluster's CA: %w", c.Name, err)
		}
		return data, nil
	}
	published, err := c.Core.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	if err == nil && published.Data["ca.crt"] == "" {
		err = errors.New("the ConfigMap kube-root-ca.crt has no ca.crt")
	}
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig names no CA of the %s cluster (give one with --certificate-authority), and it can't be read from there: %w", c.Name, err)
	}
	return []byte(published.Data["ca.crt"]), nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
