package yardstick

import (
	"context"
	"strings"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/e2e/story"
)

// ordinary is the cluster's node that a kubelet runs.
const ordinary = "node-1"

// elsewhere is the taint that a node gets which the suite is to leave alone. The
// suite's tests choose their nodes among those without a taint: the AI node's own is
// taken off while they are meant to choose it.
const elsewhere = "conformance/elsewhere"

const ownTaint = contract.TaintKey + "=" + contract.TaintValue + ":NoSchedule"

// steer writes into the suite's pods what a person writes: the AI node's label and
// toleration, no more. It runs in the API server itself, so that what is measured is
// the node and no webhook. A pod that names its node is left where it wants to be.
var steer = strings.NewReplacer(
	"{label}", contract.NodeLabel, "{labelValue}", contract.NodeLabelValue,
	"{taint}", contract.TaintKey, "{taintValue}", contract.TaintValue,
).Replace(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: conformance}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchExpressions: [{key: e2e-framework, operator: Exists}]}
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}
  matchConditions:
  - name: names-no-node
    expression: "!has(object.spec.nodeName) || object.spec.nodeName == ''"
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: |
        (has(object.spec.nodeSelector) ? [] : [JSONPatch{op: "add", path: "/spec/nodeSelector", value: {}}]) +
        [JSONPatch{op: "add", path: "/spec/nodeSelector/" + jsonpatch.escapeKey("{label}"), value: "{labelValue}"}] +
        (has(object.spec.tolerations) ? [] : [JSONPatch{op: "add", path: "/spec/tolerations", value: []}]) +
        [JSONPatch{op: "add", path: "/spec/tolerations/-", value: Object.spec.tolerations{
          key: "{taint}", operator: "Equal", value: "{taintValue}", effect: "NoSchedule"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: conformance}
spec: {policyName: conformance}
`)

// toKubelet leaves the suite the ordinary node alone.
func (y *Yardstick) toKubelet(ctx context.Context) error {
	if err := y.kubectl(ctx, "delete", "--ignore-not-found", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", "conformance"); err != nil {
		return err
	}
	return y.leave(ctx, ordinary)
}

// toAINode leaves the suite the AI node alone, with no webhook between. AI nodes are
// given service-account tokens in namespaces that are named one by one; the suite
// makes its own, so the policy that refuses the others goes.
func (y *Yardstick) toAINode(ctx context.Context) error {
	for _, args := range [][]string{
		{"mutatingwebhookconfiguration,validatingwebhookconfiguration", "--all"},
		{"validatingadmissionpolicybinding", "--ignore-not-found", "ainode-node-identity"},
	} {
		if err := y.kubectl(ctx, append([]string{"delete"}, args...)...); err != nil {
			return err
		}
	}
	return y.steered(ctx)
}

// toWebhook puts the webhook before the AI node, with the profile that allows what
// our own node agent honours. Its pods need the ordinary node once more.
func (y *Yardstick) toWebhook(ctx context.Context) error {
	if err := y.leave(ctx, ordinary); err != nil {
		return err
	}
	if err := y.story.UpgradeChart(ctx, "admission.profile="+string(contract.ProfileAgent)); err != nil {
		return err
	}
	return y.steered(ctx)
}

func (y *Yardstick) steered(ctx context.Context) error {
	if _, err := y.story.Apply(ctx, steer); err != nil {
		return err
	}
	return y.leave(ctx, story.Node)
}

// leave has one node without a taint, the one that the suite is to choose.
func (y *Yardstick) leave(ctx context.Context, node string) error {
	other := map[string]string{ordinary: story.Node, story.Node: ordinary}[node]
	taints := map[string]string{ordinary: elsewhere + "=true:NoSchedule", story.Node: ownTaint}
	for _, args := range [][]string{
		{other, taints[other]},
		// Set first: to take away what is not there is an error.
		{node, taints[node]},
		{node, taints[node] + "-"},
	} {
		if err := y.kubectl(ctx, append([]string{"taint", "--overwrite", "node"}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (y *Yardstick) kubectl(ctx context.Context, args ...string) error {
	_, err := y.story.Kubectl(ctx, args...)
	return err
}
