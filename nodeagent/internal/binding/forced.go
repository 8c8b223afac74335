package binding

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

// forced goes on with what a forced unbinding has noted in the record: a machine that
// comes back says there why its pods end, and when the last has.
func forced(conditions *[]metav1.Condition, now time.Time, step Step, s Situation) {
	c := meta.FindStatusCondition(*conditions, v1alpha1.ConditionForced)
	switch {
	case c == nil:
	case s.Record != nil && s.Record.ClusterConfigName != "":
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionForced)
	case step == Release && c.Reason == v1alpha1.ReasonUnboundByForce:
		condition(conditions, now, v1alpha1.ConditionForced, true, v1alpha1.ReasonCameBack,
			"this machine came back and stops every pod that it still runs: while it was silent, its binding was ended by force")
	case step == Rest && c.Status == metav1.ConditionTrue:
		condition(conditions, now, v1alpha1.ConditionForced, false, v1alpha1.ReasonStopped,
			"this machine came back, and every pod that it still ran is stopped: while it was silent, its binding was ended by force")
	}
}
