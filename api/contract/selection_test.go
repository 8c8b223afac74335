package contract_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ainode/ainode/api/contract"
)

const affinity = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: ["

func TestTargets(t *testing.T) {
	t.Parallel()
	const container = "containers: [{name: a, image: a}]"
	const gpu = "containers: [{name: a, image: a, resources: {limits: {nvidia.com/gpu: '1'}}}]"
	optedIn := contract.Namespace{OptedIn: true}
	for name, c := range map[string]struct {
		metadata, spec string
		ns             contract.Namespace
		want           bool
	}{
		"ordinary":                      {"", container, contract.Namespace{}, false},
		"asks for a GPU":                {"", gpu, contract.Namespace{}, false},
		"selector":                      {"", "nodeSelector: {alibabacloud.com/virtual-node: 'true'}", contract.Namespace{}, true},
		"selector of something else":    {"", "nodeSelector: {alibabacloud.com/virtual-node: 'false'}", contract.Namespace{}, false},
		"node name":                     {"", "nodeName: ai-h200-01", contract.Namespace{}, true},
		"ordinary node name":            {"labels: {ainode.dev/schedule: 'true'}", "nodeName: node-1", contract.Namespace{}, false},
		"affinity exists":               {"", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: Exists}]}]}}}", contract.Namespace{}, true},
		"affinity in":                   {"", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: In, values: ['true']}]}]}}}", contract.Namespace{}, true},
		"affinity in one term of two":   {"", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: Exists}]}, {matchExpressions: [{key: x, operator: Exists}]}]}}}", contract.Namespace{}, false},
		"affinity in both":              {"", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: In, values: ['true', 'false']}]}]}}}", contract.Namespace{}, false},
		"label":                         {"labels: {ainode.dev/schedule: 'true'}", container, contract.Namespace{}, true},
		"label, affinity away":          {"labels: {ainode.dev/schedule: 'true'}", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: DoesNotExist}]}]}}}", contract.Namespace{}, false},
		"label, affinity not in":        {"labels: {ainode.dev/schedule: 'true'}", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: NotIn, values: ['true']}]}]}}}", contract.Namespace{}, false},
		"label, affinity away or not":   {"labels: {ainode.dev/schedule: 'true'}", affinity + "{matchExpressions: [{key: alibabacloud.com/virtual-node, operator: DoesNotExist}]}, {matchExpressions: [{key: x, operator: Exists}]}]}}}", contract.Namespace{}, true},
		"label, selector away":          {"labels: {ainode.dev/schedule: 'true'}", "nodeSelector: {alibabacloud.com/virtual-node: ''}", contract.Namespace{}, false},
		"opted out":                     {"labels: {ainode.dev/schedule: 'false'}", "nodeSelector: {alibabacloud.com/virtual-node: 'true'}", contract.Namespace{}, false},
		"gpus label alone":              {"labels: {ainode.dev/gpus: '1'}", container, contract.Namespace{}, false},
		"namespace, no GPU":             {"", container, optedIn, false},
		"namespace, GPU":                {"", gpu, optedIn, true},
		"namespace, MIG alone":          {"", "containers: [{name: a, resources: {limits: {nvidia.com/mig-1g.10gb: '1'}}}]", optedIn, false},
		"namespace, no cards":           {"", "containers: [{name: a, resources: {limits: {nvidia.com/gpu: '0'}}}]", optedIn, false},
		"namespace, GPU in init":        {"", "initContainers: [{name: a, resources: {requests: {nvidia.com/gpu: '1'}}}]\n" + container, optedIn, true},
		"namespace, gpus label":         {"labels: {ainode.dev/gpus: '1'}", container, optedIn, true},
		"namespace, opted out":          {"labels: {ainode.dev/schedule: 'false'}", gpu, optedIn, false},
		"mirror pod":                    {"annotations: {kubernetes.io/config.mirror: x}", "nodeName: ai-a", contract.Namespace{}, false},
		"a DaemonSet's":                 {"ownerReferences: [{kind: DaemonSet, apiVersion: apps.kruise.io/v1, controller: true}]", "nodeName: ai-a", contract.Namespace{}, false},
		"owned by a DaemonSet besides":  {"ownerReferences: [{kind: DaemonSet, apiVersion: apps/v1}]", "nodeName: ai-a", contract.Namespace{}, true},
		"kube-system":                   {"namespace: kube-system", "nodeName: ai-a", contract.Namespace{}, false},
		"the webhook's own namespace":   {"namespace: ainode-system", "nodeName: ai-a", contract.Namespace{}, false},
		"preferred affinity":            {"", "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: alibabacloud.com/virtual-node, operator: Exists}]}}]}}", contract.Namespace{}, false},
		"tolerates and may go anywhere": {"", "tolerations: [{operator: Exists}]", contract.Namespace{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := yaml.YAMLToJSON([]byte("metadata: {" + c.metadata + "}\nspec:\n  " + indent(c.spec)))
			require.NoError(t, err)
			pod, err := contract.Decode(raw)
			require.NoError(t, err)
			require.Equal(t, c.want, contract.Targets(pod, c.ns))
		})
	}
}

func indent(s string) string {
	out := ""
	for _, r := range s {
		out += string(r)
		if r == '\n' {
			out += "  "
		}
	}
	return out
}

// Tolerates is Kubernetes' own rule (staging/src/k8s.io/api/core/v1/toleration.go).
func TestTolerates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		toleration corev1.Toleration
		want       bool
	}{
		{contract.Toleration(), true},
		{corev1.Toleration{Key: contract.TaintKey, Value: contract.TaintValue}, true},
		{corev1.Toleration{Key: contract.TaintKey, Operator: corev1.TolerationOpExists}, true},
		{corev1.Toleration{Operator: corev1.TolerationOpExists}, true},
		{corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, true},
		{corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}, false},
		{corev1.Toleration{Key: contract.TaintKey, Operator: corev1.TolerationOpEqual, Value: "azure"}, false},
		{corev1.Toleration{Key: "other", Operator: corev1.TolerationOpExists}, false},
		{corev1.Toleration{Key: contract.TaintKey, Operator: "Gt", Value: "1"}, false},
	} {
		require.Equal(t, c.want, contract.Tolerates(c.toleration), "%+v", c.toleration)
	}
}
