package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
)

// networkPlugin is one that taints nodes until its own agent, a DaemonSet's pod, is ready
// there. On an AI node no DaemonSet's pod is ever started: the taint would stay.
type networkPlugin struct {
	name string
	// is reports whether d is its agent, which stands beside its configuration.
	is        func(d *appsv1.DaemonSet) bool
	configMap string
	// taint is the key of the taint that it sets, as configured; empty if it sets none.
	taint func(d *appsv1.DaemonSet, config map[string]string) string
	// because is what it taints, and fix how it is had to leave AI nodes alone.
	because string
	fix     func(d *appsv1.DaemonSet) []string
}

// networkPlugins are those that do so by what they are told in a ConfigMap. Others' nodes
// are given such a taint by whoever makes them (AWS, GKE, Azure), and AI nodes never.
var networkPlugins = []networkPlugin{
	{
		// Its operator taints nodes where one of its pods is scheduled and not ready, by
		// the helm value operator.setNodeTaints, which is on unless it is turned off.
		name:      "Cilium",
		is:        func(d *appsv1.DaemonSet) bool { return d.Spec.Template.Labels["k8s-app"] == "cilium" },
		configMap: "cilium-config",
		taint: func(d *appsv1.DaemonSet, config map[string]string) string {
			if on, _ := strconv.ParseBool(config["set-cilium-node-taints"]); !on || !comes(d) {
				return ""
			}
			return cmp.Or(config["agent-not-ready-taint-key"], "node.cilium.io/agent-not-ready")
		},
		because: "its operator taints nodes where a pod of it is and is not ready",
		fix:     keepCiliumOff,
	},
	{
		// Its controller taints nodes that are not Ready, and its agent takes that away.
		name:      "Cisco ACI",
		is:        func(d *appsv1.DaemonSet) bool { return d.Name == "aci-containers-host" },
		configMap: "aci-containers-config",
		taint: func(_ *appsv1.DaemonSet, config map[string]string) string {
			var controller struct {
				Taint bool `json:"taint-not-ready-node"`
			}
			if json.Unmarshal([]byte(config["controller-config"]), &controller) != nil || !controller.Taint {
				return ""
			}
			return "aci-containers-host/unavailable"
		},
		because: "its controller taints nodes that are not Ready, and only its agent there takes that away",
		fix: func(*appsv1.DaemonSet) []string {
			return []string{
				fix("Set kube_config.taint_not_ready_node to False in acc-provision's input, and apply what it writes", "acc-provision -c FILE -f FLAVOR -o aci_deployment.yaml"),
			}
		},
	},
}

// keepCiliumOff has Cilium's agent leave AI nodes alone. By helm, if that has installed
// it: an edit of the DaemonSet would last until the next upgrade.
func keepCiliumOff(d *appsv1.DaemonSet) []string {
	say := fmt.Sprintf("Keep its agent off AI nodes by a required node affinity, %s DoesNotExist", contract.NodeLabel)
	release := d.Annotations["meta.helm.sh/release-name"]
	if release == "" {
		return []string{
			fix(say, "kubectl -n %s edit daemonset %s", d.Namespace, d.Name),
			fix("Or have it taint no nodes", `kubectl -n %[1]s patch configmap cilium-config -p '{"data":{"set-cilium-node-taints":"false"}}'; kubectl -n %[1]s rollout restart deployment cilium-operator`, d.Namespace),
		}
	}
	upgrade := fmt.Sprintf("helm -n %s upgrade %s cilium/cilium --reuse-values", cmp.Or(d.Annotations["meta.helm.sh/release-namespace"], d.Namespace), release)
	return []string{
		fix(say, `%s --set-json 'affinity.nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"%s","operator":"DoesNotExist"}]}]}}'`,
			upgrade, contract.NodeLabel),
		fix("Or have it taint no nodes", "%s --set operator.setNodeTaints=false", upgrade),
	}
}

// cniTaints finds network plugins that would taint the nodes for ever. Which taints bound
// nodes have is the check node-taints' matter.
func cniTaints(ctx context.Context, s *sight) (string, []flaw, error) {
	all, err := s.daemonSets()
	if err != nil {
		return "", nil, err
	}
	var flaws []flaw
	for i := range all {
		d := &all[i]
		for _, plugin := range networkPlugins {
			if !plugin.is(d) {
				continue
			}
			config, err := s.Target.Core.CoreV1().ConfigMaps(d.Namespace).Get(ctx, plugin.configMap, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue // who has it told otherwise has not told us
			}
			if err != nil {
				return "", nil, err
			}
			if key := plugin.taint(d, config.Data); key != "" {
				flaws = append(flaws, flaw{Warning, fmt.Sprintf("%s would taint AI nodes for ever: %s", plugin.name, key),
					plugin.because + "; on AI nodes no DaemonSet's pod ever is, and pods that don't tolerate the taint stay Pending", plugin.fix(d)})
			}
		}
	}
	return "no network plugin is known here that taints AI nodes", flaws, nil
}
