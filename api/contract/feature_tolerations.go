package contract

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// apiServerSeconds is how long the API server lets every pod tolerate a node that
// is not ready or unreachable (admission plugin DefaultTolerationSeconds).
const apiServerSeconds = 300

// tolerations is row tolerations of SUPPORT.md: the taint's toleration is added unless
// the pod tolerates the taint already, by Kubernetes' own rule; where the policy says so,
// the API server's tolerations of unreachable nodes are made longer.
func tolerations(r *review) {
	tolerateTaint(r)
	tolerateUnreachable(r)
}

func tolerateTaint(r *review) {
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

// tolerateUnreachable touches what the API server added to the pod and nothing
// else: another number is somebody's own. That was when the pod was made; a
// template has none yet, and later it is too late.
func tolerateUnreachable(r *review) {
	seconds := r.Policy.UnreachableSeconds
	if seconds == 0 || seconds == apiServerSeconds || r.Moment != OnCreate {
		return
	}
	for i, t := range r.pod.Spec.Tolerations {
		if !ofAPIServer(t) {
			continue
		}
		field := fmt.Sprintf("spec.tolerations[%d].tolerationSeconds", i)
		r.find(Finding{
			Field: field, Action: Normalise, Routine: true, Old: raw(apiServerSeconds),
			Detail: fmt.Sprintf("stays %d s on a node that is not ready or unreachable, not %d s", seconds, apiServerSeconds),
		}, set(fmt.Sprintf("/spec/tolerations/%d/tolerationSeconds", i), seconds))
	}
}

func ofAPIServer(t corev1.Toleration) bool {
	return (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable) &&
		t.Operator == corev1.TolerationOpExists && t.Effect == corev1.TaintEffectNoExecute &&
		t.TolerationSeconds != nil && *t.TolerationSeconds == apiServerSeconds
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
