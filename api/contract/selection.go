package contract

import "slices"

const (
	mirrorAnnotation           = "kubernetes.io/config.mirror"
	defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"
	daemonSetKind              = "DaemonSet"
)

// UntouchedNamespaces are those whose pods are never AI nodes' pods.
func UntouchedNamespaces() []string {
	return []string{"kube-system", "kube-node-lease", SystemNamespace}
}

// Namespace holds the two facts about a pod's namespace that its own JSON does
// not tell.
type Namespace struct {
	// OptedIn is true where the namespace carries ScheduleLabel "true".
	OptedIn bool
	// Restricted is true where it enforces Pod Security restricted.
	Restricted bool
}

// Targets reports whether pod is an AI node's pod. No other pod is
// ever looked at, changed, warned about or refused.
func Targets(pod *Pod, ns Namespace) bool {
	if pod.untouchable() || pod.elsewhere() {
		return false
	}
	return pod.selectsAINodes() || pod.optsIn(ns)
}

// untouchable is true of pods that opt out and of those that no webhook should
// touch: mirror pods, which the kubelet owns, and a DaemonSet's, which a refusal
// would make spin.
func (p *Pod) untouchable() bool {
	if p.Metadata.Labels[ScheduleLabel] == "false" || slices.Contains(UntouchedNamespaces(), p.Metadata.Namespace) {
		return true
	}
	if _, mirror := p.Metadata.Annotations[mirrorAnnotation]; mirror {
		return true
	}
	return p.ofDaemonSet()
}

func (p *Pod) ofDaemonSet() bool {
	return slices.ContainsFunc(p.Metadata.OwnerReferences, func(o Owner) bool {
		return o.Controller && o.Kind == daemonSetKind
	})
}

// elsewhere is true of a pod that can never run on an AI node, whatever its
// labels say.
func (p *Pod) elsewhere() bool {
	if p.Spec.NodeName != "" && !IsNodeName(p.Spec.NodeName) {
		return true
	}
	if value, ok := p.Spec.NodeSelector[NodeLabel]; ok && value != NodeLabelValue {
		return true
	}
	return p.Spec.Affinity.requires(rulesOutAINodes)
}

// selectsAINodes is true of a pod that can run nowhere else.
func (p *Pod) selectsAINodes() bool {
	return p.Spec.NodeSelector[NodeLabel] == NodeLabelValue ||
		IsNodeName(p.Spec.NodeName) ||
		p.Spec.Affinity.requires(asksForAINodes)
}

func (p *Pod) optsIn(ns Namespace) bool {
	if p.Metadata.Labels[ScheduleLabel] == "true" {
		return true
	}
	if !ns.OptedIn {
		return false
	}
	_, labelled := p.Metadata.Labels[GPUsLabel]
	return labelled || p.asksForGPU()
}

// asksForGPU is true where a container asks for whole cards; MIG slices alone opt
// nobody in.
func (p *Pod) asksForGPU() bool {
	for _, list := range [][]*Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			if c == nil {
				continue
			}
			if r := c.Resources; r != nil && (nonZero(r.Limits) || nonZero(r.Requests)) {
				return true
			}
		}
	}
	return false
}

func nonZero(amounts Amounts) bool {
	amount, ok := amounts[string(GPUResource)]
	if !ok {
		return false
	}
	q, err := Quantity(amount)
	return err != nil || !q.IsZero()
}
