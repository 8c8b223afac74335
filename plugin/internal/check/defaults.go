package check

import (
	"encoding/json"
	"path"

	"github.com/ainode/ainode/api/contract"
)

// tokenVolume is the name of the volume that stands for the one that ServiceAccount
// admission makes; the real one ends in five random letters.
const tokenVolume = "kube-api-access"

// defaulted does to a pod what an API server does before the webhook sees it, as
// far as a row of the support table looks at it: requests are copied from limits
// (SetDefaults_Pod of Kubernetes' core/v1), and the account's token is mounted
// (ServiceAccount admission). A dnsPolicy that is not there is judged like its
// default, hostPorts that come from hostNetwork go with it.
func defaulted(raw json.RawMessage) (json.RawMessage, error) {
	pod, err := loose(raw)
	if err != nil {
		return nil, err
	}
	spec, ok := pod["spec"].(map[string]any)
	if !ok {
		return raw, nil // Decode says what is wrong
	}
	for _, c := range containers(spec, "containers", "initContainers") {
		if resources, ok := c["resources"].(map[string]any); ok {
			copyLimits(resources)
		}
	}
	mountToken(spec)
	return json.Marshal(pod)
}

func containers(spec map[string]any, lists ...string) []map[string]any {
	var all []map[string]any
	for _, list := range lists {
		some, _ := spec[list].([]any)
		for _, c := range some {
			if c, ok := c.(map[string]any); ok {
				all = append(all, c)
			}
		}
	}
	return all
}

func copyLimits(resources map[string]any) {
	limits, ok := resources["limits"].(map[string]any)
	if !ok {
		return
	}
	requests, ok := resources["requests"].(map[string]any)
	if !ok {
		if resources["requests"] != nil {
			return // no mapping: Decode says so
		}
		requests = map[string]any{}
	}
	for name, amount := range limits {
		if _, ok := requests[name]; !ok {
			requests[name] = amount
		}
	}
	if len(requests) > 0 {
		resources["requests"] = requests
	}
}

// mountToken mounts the token into the containers that mount nothing at its path.
// What the ServiceAccount itself says of it is not known here.
func mountToken(spec map[string]any) {
	if spec["automountServiceAccountToken"] == false {
		return
	}
	volumes, ok := spec["volumes"].([]any)
	if !ok && spec["volumes"] != nil {
		return
	}
	mounted := false
	for _, c := range containers(spec, "containers", "initContainers") {
		mounts, ok := c["volumeMounts"].([]any)
		if !ok && c["volumeMounts"] != nil || mountsAt(mounts, contract.ServiceAccountMountPath) {
			continue
		}
		c["volumeMounts"] = append(mounts, map[string]any{
			"name": tokenVolume, "readOnly": true, "mountPath": contract.ServiceAccountMountPath,
		})
		mounted = true
	}
	if mounted {
		spec["volumes"] = append(volumes, map[string]any{"name": tokenVolume, "projected": map[string]any{"sources": []any{
			map[string]any{"serviceAccountToken": map[string]any{"path": "token"}},
			map[string]any{"configMap": map[string]any{"name": "kube-root-ca.crt"}},
			map[string]any{"downwardAPI": map[string]any{}},
		}}})
	}
}

func mountsAt(mounts []any, dir string) bool {
	for _, m := range mounts {
		if m, ok := m.(map[string]any); ok {
			if at, _ := m["mountPath"].(string); path.Clean(at) == dir {
				return true
			}
		}
	}
	return false
}
