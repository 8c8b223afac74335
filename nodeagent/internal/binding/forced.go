package binding

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// forced adds to the conditions of a record, that is now have, what became of a binding
// that was ended by force: a machine that comes back says there why its pods end, and
// when the last has. It takes the binding for ended so where somebody has reported in its
// place that all is given back; what they have noted besides may have been overwritten by
// a report that an older agent was late with.
func forced(conditions *[]metav1.Condition, now time.Time, step Step, s Situation, have v1alpha1.AINodeStatus) {
	spoken := have.BindStatus == v1alpha1.Unbound && s.Credential != 0 && have.ObservedEpoch >= s.Credential
	switch {
	case s.Record != nil && s.Record.ClusterConfigName != "":
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionForced)
	case step == Release && spoken:
		condition(conditions, now, v1alpha1.ConditionForced, true, v1alpha1.ReasonCameBack,
			"this machine came back and stops every pod that it still runs: while it was silent, its binding was ended by force")
	case step == Rest && meta.IsStatusConditionTrue(*conditions, v1alpha1.ConditionForced):
		condition(conditions, now, v1alpha1.ConditionForced, false, v1alpha1.ReasonStopped,
			"this machine came back, and every pod that it still ran is stopped: while it was silent, its binding was ended by force")
	}
}
