package contract

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Affinity is what the rules see of a pod's affinity.
type Affinity struct {
	NodeAffinity *struct {
		Required *struct {
			Terms []Term `json:"nodeSelectorTerms"`
		} `json:"requiredDuringSchedulingIgnoredDuringExecution"`
	} `json:"nodeAffinity"`
	PodAffinity     *Spread `json:"podAffinity"`
	PodAntiAffinity *Spread `json:"podAntiAffinity"`
}

// Spread is a pod affinity or anti-affinity.
type Spread struct {
	Required  []Topology `json:"requiredDuringSchedulingIgnoredDuringExecution"`
	Preferred []struct {
		Term Topology `json:"podAffinityTerm"`
	} `json:"preferredDuringSchedulingIgnoredDuringExecution"`
}

// Term is one term of a required node affinity; a node has to match one of them.
type Term struct {
	Expressions []corev1.NodeSelectorRequirement `json:"matchExpressions"`
}

// requires reports whether every term of the required node affinity holds an
// expression on the AI nodes' label that is so.
func (a *Affinity) requires(so func(corev1.NodeSelectorRequirement) bool) bool {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.Required == nil || len(a.NodeAffinity.Required.Terms) == 0 {
		return false
	}
	for _, term := range a.NodeAffinity.Required.Terms {
		if !slices.ContainsFunc(term.Expressions, func(e corev1.NodeSelectorRequirement) bool {
			return e.Key == NodeLabel && so(e)
		}) {
			return false
		}
	}
	return true
}

// asksForAINodes is true of an expression that only AI nodes match.
func asksForAINodes(e corev1.NodeSelectorRequirement) bool {
	switch e.Operator {
	case corev1.NodeSelectorOpExists:
		return true
	case corev1.NodeSelectorOpIn:
		return len(e.Values) == 1 && e.Values[0] == NodeLabelValue
	default:
		return false
	}
}

// rulesOutAINodes is true of an expression that no AI node matches.
func rulesOutAINodes(e corev1.NodeSelectorRequirement) bool {
	switch e.Operator {
	case corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt: // the label's value is no number
		return true
	case corev1.NodeSelectorOpIn:
		return !slices.Contains(e.Values, NodeLabelValue)
	case corev1.NodeSelectorOpNotIn:
		return slices.Contains(e.Values, NodeLabelValue)
	default:
		return false
	}
}
