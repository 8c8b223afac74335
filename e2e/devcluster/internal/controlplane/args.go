package controlplane

import (
	"path/filepath"

	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

func etcdArgs(l layout.Layout) []string {
	return []string{
		"--name=devcluster",
		"--data-dir=" + l.Path("etcd"),
		"--listen-client-urls=" + etcdAddress,
		"--advertise-client-urls=" + etcdAddress,
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=devcluster=http://127.0.0.1:2380",
		"--unsafe-no-fsync", // the data is worth nothing after `down`
		"--auto-compaction-retention=10m",
		"--quota-backend-bytes=1073741824",
		"--heartbeat-interval=50", "--election-timeout=250", // alone, it elects itself at once
		"--log-level=warn",
	}
}

func apiServerArgs(l layout.Layout, plan subnet.Plan, policy string) []string {
	f := folder(l)
	return []string{
		"--etcd-servers=" + etcdAddress,
		"--bind-address=0.0.0.0",
		"--advertise-address=" + plan.Node(),
		"--secure-port=" + Port,
		"--service-cluster-ip-range=" + plan.Services(),
		"--allow-privileged=true",

		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction,ServiceAccount,PodSecurity",
		"--enable-aggregator-routing=true", // reach webhooks by endpoint: no kube-proxy here

		"--client-ca-file=" + f.Cert("ca"),
		"--tls-cert-file=" + f.Cert("apiserver"),
		"--tls-private-key-file=" + f.Key("apiserver"),
		"--kubelet-certificate-authority=" + f.Cert("ca"),
		"--kubelet-client-certificate=" + f.Cert("apiserver-kubelet-client"),
		"--kubelet-client-key=" + f.Key("apiserver-kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--requestheader-client-ca-file=" + f.Cert("front-proxy-ca"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + f.Cert("front-proxy-client"),
		"--proxy-client-key-file=" + f.Key("front-proxy-client"),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + filepath.Join(l.CertDir(), "service-account.pub"),
		"--service-account-signing-key-file=" + f.Key("service-account"),

		"--audit-policy-file=" + policy,
		"--audit-log-path=" + filepath.Join(l.LogDir(), "audit.log"),
		"--audit-log-maxsize=100", "--audit-log-maxbackup=1",
		"--profiling=false",
		"--v=1",
	}
}

func controllerArgs(l layout.Layout) []string {
	f := folder(l)
	config := kubeconfig(l, "controller-manager")
	return []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + f.Key("service-account"),
		"--root-ca-file=" + f.Cert("ca"),
		"--client-ca-file=" + f.Cert("ca"),
		"--requestheader-client-ca-file=" + f.Cert("front-proxy-ca"),
		"--cluster-signing-cert-file=" + f.Cert("ca"),
		"--cluster-signing-key-file=" + f.Key("ca"),
		"--allocate-node-cidrs=false",
		"--kube-api-qps=200", "--kube-api-burst=400", // a token for each of fifty controllers at start
		"--flex-volume-plugin-dir=" + l.Path("node", "volume-plugins"), // the usual one is on the host
		"--profiling=false",
		"--v=1",
	}
}

func schedulerArgs(l layout.Layout) []string {
	config := kubeconfig(l, "scheduler")
	return []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--profiling=false",
		"--v=1",
	}
}
