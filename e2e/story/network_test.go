package story

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// whoAsks is a server that answers with the address that it is asked from.
const whoAsks = `mkdir -p /tmp/www/cgi-bin && printf '#!/bin/sh\necho; echo "$REMOTE_ADDR"\n' >/tmp/www/cgi-bin/who && chmod +x /tmp/www/cgi-bin/who && echo "$NAME $IP" >/tmp/www/index.html
trap 'exit 0' TERM; httpd -f -p 0.0.0.0:8080 -h /tmp/www & wait`

// twins are two pods that listen at one port of one node, behind a Service, and a pod
// of the ordinary node that answers them.
const twins = `
apiVersion: v1
kind: Service
metadata: {name: twin}
spec: {selector: {app: twin}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: twin}
spec:
  replicas: 2
  selector: {matchLabels: {app: twin}}
  template:
    metadata: {labels: {app: twin}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      nodeSelector: {alibabacloud.com/virtual-node: "true"}
      containers:
      - name: c
        image: %[1]s
        imagePullPolicy: Never
        command: [sh, -c, %[2]q]
        ports: [{containerPort: 8080}]
        env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
---
apiVersion: v1
kind: Pod
metadata: {name: ordinary}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - {name: c, image: %[1]s, imagePullPolicy: Never, command: [sh, -c, %[2]q]}
`

// testPodAddresses binds the machine again, with a range that the cluster routes to
// it: each pod has an address of its own, which the cluster reaches and sees.
func (s *Story) testPodAddresses(t *testing.T) {
	ctx, machineHas := t.Context(), s.cluster.Machines[0]
	before := s.machineNetwork(t)

	around := netip.PrefixFrom(netip.MustParseAddr(machineHas.Address), 24).Masked().String()
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", Config, "--pod-cidr", around), "the machine's own address")
	require.Contains(t, s.refused(t, "patch", "ainode", Node, "--type=merge", "-p", `{"spec":{"podCIDR":"10.64.3.7/24"}}`), "a range of IPv4 addresses")
	_, err := s.typed(ctx, "kubectl", "ainode", "bind", Node, "--to", Config, "--pod-cidr", machineHas.PodCIDR, "--timeout", "2m")
	require.NoError(t, err)
	require.Equal(t, "True Answered", s.must(t, "get", "ainode", Node, "-o", `jsonpath={.status.conditions[?(@.type=="PodsAnswered")].status} {.status.conditions[?(@.type=="PodsAnswered")].reason}`))
	require.Contains(t, s.refused(t, "ainode", "bind", Node, "--to", Config, "--pod-cidr", "10.1.2.0/24"), "have addresses of "+machineHas.PodCIDR)
	require.Contains(t, s.refused(t, "patch", "ainode", Node, "--type=merge", "-p", `{"spec":{"podCIDR":null}}`), "keeps its pods' range")

	var node corev1.Node
	s.get(t, &node, "node", Node)
	require.Equal(t, machineHas.PodCIDR, node.Spec.PodCIDR)
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			require.Equal(t, corev1.ConditionFalse, c.Status)
			require.Equal(t, "CNI", c.Reason)
		}
	}

	s.apply(t, fmt.Sprintf(twins, toolsImage, whoAsks))
	s.must(t, "rollout", "status", "deployment/twin", "--timeout=2m")
	s.must(t, "wait", "--for=condition=Ready", "pod/ordinary", "--timeout=2m")
	pods := s.pods(t, "-l", "app=twin")
	require.Len(t, pods, 2)
	var addresses []string
	for _, pod := range pods {
		require.Equal(t, Node, pod.Spec.NodeName)
		require.Equal(t, machineHas.Address, pod.Status.HostIP)
		require.True(t, netip.MustParsePrefix(machineHas.PodCIDR).Contains(netip.MustParseAddr(pod.Status.PodIP)), pod.Status.PodIP)
		addresses = append(addresses, pod.Status.PodIP)
	}
	slices.Sort(addresses)
	require.NotEqual(t, addresses[0], addresses[1])
	eventually(t, 2*time.Minute, "both are the Service's endpoints", func() (bool, string) {
		out := strings.Fields(s.must(t, "get", "endpointslices", "-l", "kubernetes.io/service-name=twin", "-o", "jsonpath={.items[*].endpoints[*].addresses[*]}"))
		slices.Sort(out)
		return slices.Equal(out, addresses), fmt.Sprint(out)
	})
	require.NotEmpty(t, s.must(t, "get", "--raw", "/api/v1/namespaces/default/services/twin:8080/proxy/"), "the API server reaches an endpoint")

	ordinary := s.must(t, "get", "pod", "ordinary", "-o", "jsonpath={.status.podIP}")
	for i, pod := range pods {
		self, page := pod.Status.PodIP, pod.Name+" "+pod.Status.PodIP+"\n"
		other := pods[1-i]
		require.Equal(t, page, s.asks(t, "ordinary", self, "/"), "from the ordinary node")
		require.Equal(t, page, s.asks(t, other.Name, self, "/"), "from a pod beside it")
		require.Equal(t, page, s.forwarded(t, "pod/"+pod.Name, 8080))
		// Nobody between translates: each is seen by its own address.
		require.Equal(t, ordinary+"\n", s.asks(t, "ordinary", self, "/cgi-bin/who"))
		require.Equal(t, self+"\n", s.asks(t, pod.Name, ordinary, "/cgi-bin/who"))
		require.Equal(t, self+"\n", s.asks(t, pod.Name, other.Status.PodIP, "/cgi-bin/who"))
	}

	seen := func() map[string]string {
		all := map[string]string{}
		for _, pod := range s.pods(t, "-l", "app=twin") {
			all[pod.Name] = pod.Status.PodIP + " " + pod.Status.ContainerStatuses[0].ContainerID
		}
		return all
	}
	was := seen()
	require.NoError(t, s.KillAgent(ctx))
	require.NoError(t, s.StartAgent(ctx))
	eventually(t, 2*time.Minute, "the agent answers again", func() (bool, string) {
		out, err := s.Kubectl(ctx, "exec", pods[0].Name, "--", "true")
		return err == nil, fmt.Sprint(out, err)
	})
	require.Empty(t, cmp.Diff(was, seen()))
	require.NotEmpty(t, s.asks(t, "ordinary", addresses[0], "/"))

	s.must(t, "delete", "deployment/twin", "service/twin", "--wait=false")
	s.must(t, "ainode", "unbind", Node, "--timeout", "2m")
	s.must(t, "delete", "pod", "ordinary", "--wait=true", "--timeout=2m")
	require.Empty(t, cmp.Diff(before, s.machineNetwork(t)), "something of the pods' network is left")
}

// asks has a pod ask another address.
func (s *Story) asks(t *testing.T, pod, address, path string) (answer string) {
	t.Helper()
	eventually(t, time.Minute, pod+" asks "+address, func() (bool, string) {
		out, err := s.Kubectl(t.Context(), "exec", pod, "--", "timeout", "20", "wget", "-qO-", "http://"+address+":8080"+path)
		answer = out
		return err == nil, fmt.Sprint(out, err)
	})
	return answer
}

// machineNetwork is what is to be seen of pods' networks on the machine.
func (s *Story) machineNetwork(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for what, command := range map[string]string{
		"links":          "ip -o link | grep -o '^[0-9]*: [^:@]*' | cut -d' ' -f2 | sort",
		"routes":         "ip route",
		"namespaces":     "ls /run/netns /var/run/netns 2>/dev/null | grep '^cni-'",
		"rules":          "iptables-save 2>/dev/null | grep '^-'",
		"leases":         "find /run/ainode-agent /run/cni -type f 2>/dev/null",
		"configurations": "ls " + s.cluster.Machines[0].CNIConfDir,
		"results":        "find /var/lib/cni -type f 2>/dev/null",
	} {
		out, err := s.devcluster(t.Context(), false, "exec", machine, "--", "sh", "-c", command+" || true")
		require.NoError(t, err)
		all[what] = out
	}
	return all
}
