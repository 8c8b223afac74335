package contract

import corev1 "k8s.io/api/core/v1"

// tolerations, contract §6: the taint's toleration is added unless the pod
// tolerates the taint already, by Kubernetes' own rule.
func tolerations(r *review) {
	for _, t := range r.pod.Spec.Tolerations {
		if Tolerates(t) {
			return
		}
	}
	add := set("/spec/tolerations/-", Toleration())
	if len(r.pod.Spec.Tolerations) == 0 {
		add = set("/spec/tolerations", []corev1.Toleration{Toleration()})
	}
	r.find(Finding{
		Field: "spec.tolerations", Action: Inject, Routine: true,
		Detail: "toleration of " + TaintKey + " added",
	}, add)
}

// Tolerates reports whether t tolerates the AI nodes' taint. It is the rule of
// corev1.Toleration.ToleratesTaint without its logger: an empty key with Exists
// tolerates every key, an empty effect every effect, an empty operator is Equal.
func Tolerates(t corev1.Toleration) bool {
	if t.Effect != "" && t.Effect != corev1.TaintEffectNoSchedule {
		return false
	}
	if t.Key != "" && t.Key != TaintKey {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key == TaintKey && t.Value == TaintValue
	default:
		return false // Lt and Gt compare numbers, and the taint's value is none
	}
}
