// Package controlplane runs etcd, the API server, the controller manager and
// the scheduler in the ordinary node's room, set up the way a careful
// installer would: RBAC and Node authorization, NodeRestriction, audit.
package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/certs"
	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// Port is the API server's on the node's address.
const Port = "6443"

const (
	clusterName = "devcluster"
	issuer      = "https://kubernetes.default.svc.cluster.local"
	etcdAddress = "http://127.0.0.1:2379" // the room's own loopback

	// kubeletClient is the user the API server is to a kubelet.
	kubeletClient = "kube-apiserver-kubelet-client"
)

// Names of the daemons, in the order they start.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Server is the API server's address for everyone: host, pods and machines.
func Server(plan subnet.Plan) string { return "https://" + plan.Node() + ":" + Port }

func folder(l layout.Layout) certs.Folder { return certs.Folder(l.CertDir()) }

// kubeconfigs lie beside the certificates, but for the administrator's.
func kubeconfig(l layout.Layout, name string) string {
	return filepath.Join(l.CertDir(), name+".kubeconfig")
}

// NodeKubeconfig, NodeCert and ClusterCA are what the kubelet needs.
func NodeKubeconfig(l layout.Layout) string { return kubeconfig(l, "node") }
func NodeCert(l layout.Layout) (string, string) {
	return folder(l).Cert("kubelet"), folder(l).Key("kubelet")
}
func ClusterCA(l layout.Layout) string { return folder(l).Cert("ca") }

// Issue makes every certificate, key and kubeconfig. The administrator's
// kubeconfig is written last: when it is there, all are.
func Issue(l layout.Layout, plan subnet.Plan) error {
	if layout.Exists(l.Kubeconfig()) {
		return nil
	}
	f := folder(l)
	ca, err := f.NewAuthority("ca", "devcluster-ca")
	if err != nil {
		return err
	}
	front, err := f.NewAuthority("front-proxy-ca", "devcluster-front-proxy-ca")
	if err != nil {
		return err
	}
	if err := f.NewKeyPair("service-account"); err != nil {
		return err
	}
	serverNames := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "127.0.0.1", plan.APIService(), plan.Node(), layout.NodeName,
	}
	for _, item := range []struct {
		name    string
		by      *certs.Authority
		request certs.Request
	}{
		{"apiserver", ca, certs.Request{User: "kube-apiserver", Names: serverNames, Server: true}},
		{"apiserver-kubelet-client", ca, certs.Request{User: kubeletClient, Client: true}},
		{"front-proxy-client", front, certs.Request{User: "front-proxy-client", Client: true}},
		{"kubelet", ca, certs.Request{User: "system:node:" + layout.NodeName, Groups: []string{"system:nodes"}, Names: []string{layout.NodeName, plan.Node()}, Server: true}},
	} {
		if _, _, err := f.Issue(item.by, item.name, item.request); err != nil {
			return err
		}
	}
	for _, item := range []struct{ name, user, group, file string }{
		{"controller-manager", "system:kube-controller-manager", "", kubeconfig(l, "controller-manager")},
		{"scheduler", "system:kube-scheduler", "", kubeconfig(l, "scheduler")},
		{"node", "system:node:" + layout.NodeName, "system:nodes", NodeKubeconfig(l)},
		{"admin", "devcluster-admin", "system:masters", l.Kubeconfig()},
	} {
		request := certs.Request{User: item.user, Client: true}
		if item.group != "" {
			request.Groups = []string{item.group}
		}
		cert, key, err := f.Issue(ca, item.name, request)
		if err != nil {
			return err
		}
		if err := certs.WriteKubeconfig(item.file, clusterName, Server(plan), item.user, ca.PEM, cert, key); err != nil {
			return err
		}
	}
	return nil
}

// Start runs etcd and the API server, and the two that wait for it. They all
// retry by themselves, so nothing here waits.
func Start(l layout.Layout, plan subnet.Plan) error {
	policy := l.Path("audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o644); err != nil {
		return fmt.Errorf("writing the audit policy: %w", err)
	}
	for _, item := range []struct {
		name string
		args []string
	}{
		{Etcd, etcdArgs(l)},
		{APIServer, apiServerArgs(l, plan, policy)},
	} {
		if err := start(l, item.name, item.args); err != nil {
			return err
		}
	}
	return nil
}

// StartControllers runs what needs an API server to talk to.
func StartControllers(l layout.Layout, plan subnet.Plan) error {
	if err := start(l, ControllerManager, controllerArgs(l)); err != nil {
		return err
	}
	return start(l, Scheduler, schedulerArgs(l))
}

func start(l layout.Layout, name string, args []string) error {
	_, err := daemon.Start(l, daemon.Spec{
		Name: name, Room: layout.NodeName,
		Argv: append([]string{l.Program(name)}, args...),
		// Half as many collections for a little more memory: two cores are scarce.
		Env: daemon.Environment(l, "GOGC=200"),
	})
	return err
}

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// WaitReady waits until the API server is ready.
func WaitReady(ctx context.Context, l layout.Layout, client *http.Client, plan subnet.Plan) error {
	for {
		response, err := client.Get(Server(plan) + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/readyz answers %s", response.Status)
		}
		for _, name := range []string{Etcd, APIServer} {
			if died := daemon.Check(l, name); died != nil {
				return died
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the API server: %w; %s", err, daemon.Tail(l, APIServer))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
