// Package node runs the real kubelet as the cluster's ordinary node.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/ainode/ainode/e2e/devcluster/internal/controlplane"
	"github.com/ainode/ainode/e2e/devcluster/internal/daemon"
	"github.com/ainode/ainode/e2e/devcluster/internal/layout"
	"github.com/ainode/ainode/e2e/devcluster/internal/subnet"
)

// Kubelet is the daemon's name.
const Kubelet = "kubelet"

// KernelSettings are what a kubelet sets for the whole computer.
var KernelSettings = []string{
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
	"/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes",
}

// Start runs the kubelet.
func Start(l layout.Layout, plan subnet.Plan) error {
	config, err := json.MarshalIndent(configuration(l, plan), "", "  ")
	if err != nil {
		return fmt.Errorf("writing the kubelet's configuration: %w", err)
	}
	file := l.Path("node", "kubelet.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return fmt.Errorf("writing the kubelet's configuration: %w", err)
	}
	_, err = daemon.Start(l, daemon.Spec{
		Name: Kubelet, Room: layout.NodeName,
		Argv: []string{
			l.Program("kubelet"),
			"--config=" + file,
			"--kubeconfig=" + controlplane.NodeKubeconfig(l),
			"--hostname-override=" + layout.NodeName,
			"--node-ip=" + plan.Node(),
			"--root-dir=/var/lib/kubelet", // the room's own; its sockets need a short path
			"--v=1",
		},
		Env: daemon.Environment(l, "GOGC=200"),
	})
	return err
}

// configuration is a KubeletConfiguration. A nearly full disk must not taint
// the node: it is the developer's disk.
func configuration(l layout.Layout, plan subnet.Plan) map[string]any {
	cert, key := controlplane.NodeCert(l)
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": controlplane.ClusterCA(l)},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              cert,
		"tlsPrivateKeyFile":        key,
		"containerRuntimeEndpoint": "unix://" + l.ContainerdSocket(layout.NodeName),
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"oomScoreAdj":              0, // lowering it takes a right that not every machine gives
		"clusterDomain":            "cluster.local",
		"clusterDNS":               []string{plan.DNSService()},
		"resolvConf":               "/etc/resolv.conf",
		"podLogsDir":               "/var/log/pods",
		"volumePluginDir":          l.Path("node", "volume-plugins"), // the usual one is on the host
		"evictionHard": map[string]any{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"registryPullQPS":             0,
		"serializeImagePulls":         false,
		"enableProfilingHandler":      false,
	}
}

// WaitReady waits until the node is ready for pods.
func WaitReady(ctx context.Context, l layout.Layout, client *http.Client, plan subnet.Plan, say func(string)) error {
	for {
		ready, why := controlplane.NodeReady(client, plan, layout.NodeName)
		if ready && controlplane.DefaultAccountExists(client, plan) {
			return nil
		}
		say(why)
		for _, name := range []string{Kubelet, controlplane.APIServer, controlplane.ControllerManager} {
			if err := daemon.Check(l, name); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to be ready: %s; %s", layout.NodeName, why, daemon.Tail(l, Kubelet))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
