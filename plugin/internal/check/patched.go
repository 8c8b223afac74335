package check

import (
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/ainode/ainode/api/contract"
)

// patched is a pod as the webhook has it stored; nil where it is refused.
func patched(raw []byte, verdict contract.Verdict) ([]byte, error) {
	if verdict.Denied() {
		return nil, nil
	}
	if len(verdict.Patch) == 0 {
		return raw, nil
	}
	ops, err := json.Marshal(verdict.Patch)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	pod, err := patch.Apply(raw)
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	return pod, nil
}

// patchedTemplate is the pod that a workload's template comes to.
func patchedTemplate(template []byte, o Object, s Settings) ([]byte, error) {
	raw, err := podOf(template, o)
	if err != nil {
		return nil, err
	}
	if raw, err = defaulted(raw); err != nil {
		return nil, err
	}
	pod, err := decode(raw, o, s)
	if err != nil {
		return nil, err
	}
	verdict, err := contract.Request{Pod: pod, Namespace: s.Namespace, Policy: s.Policy, Moment: contract.OnCreate}.Evaluate()
	if err != nil {
		return nil, err
	}
	return patched(raw, verdict)
}

// podOf makes a pod of a workload's template.
func podOf(template []byte, o Object) ([]byte, error) {
	pod, err := loose(template)
	if err != nil {
		return nil, err
	}
	if pod == nil {
		pod = map[string]any{}
	}
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	meta, ok := pod["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		pod["metadata"] = meta
	}
	delete(meta, "creationTimestamp")
	if o.Name != "" {
		meta["generateName"] = o.Name + "-"
	}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	return json.Marshal(pod)
}
