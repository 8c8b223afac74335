package yardstick

import "github.com/ainode/ainode/api/contract"

// ruledOut lists the tests that are not for AI nodes, each with the contract's row
// that says so. It is kept by hand: `make conformance` fails where a test is missing
// from it and where one that passes is in it.
var ruledOut = map[string]contract.Feature{
	// The machine's own files.
	"[sig-storage] HostPath should give a volume the correct mode":                  "host-path",
	"[sig-storage] HostPath should support r/w":                                     "host-path",
	"[sig-storage] HostPath should support subPath":                                 "host-path",
	"[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file": "host-path",

	// The machine's own network: in some it is the asking pod that wants it.
	"[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http":                                                                                       "host-network",
	"[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp":                                                                                        "host-network",
	"[sig-node] Downward API should provide host IP and pod IP as an env var if pod uses host network":                                                                                      "host-network",
	"[sig-node] Kubelet with pods in a privileged namespace when scheduling an agnhost Pod with hostAliases and hostNetwork should write entries to /etc/hosts when hostNetwork is enabled": "host-network",

	// Refused by the API server because of the machine's network, which the webhook
	// takes away before.
	"[sig-node] Override hostname of Pod a pod with hostNetwork and hostnameOverride fields will fail to be created": "host-network",

	// The webhook takes the machine's kernel setting away, where the node refuses.
	"[sig-node] Sysctls should not launch unsafe, but not explicitly enabled sysctls on the node": "security-context",

	// Denied by the webhook; the tests look no further than the scheduler.
	"[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead": "runtime-class",
	"[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead":         "runtime-class",

	// A privileged container.
	"[sig-node] PrivilegedPod should enable privileged commands": "security-context",
}
