package binding

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/v1alpha1"
)

func TestForcedUnbindingIsTold(t *testing.T) {
	t.Parallel()
	now := time.Now()
	noted := metav1.Condition{Type: v1alpha1.ConditionForced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnboundByForce}
	back := metav1.Condition{Type: v1alpha1.ConditionForced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCameBack}
	spoken := v1alpha1.AINodeStatus{BindStatus: v1alpha1.Unbound, ObservedEpoch: 2}
	own := v1alpha1.AINodeStatus{BindStatus: v1alpha1.Bound, ObservedEpoch: 2}
	serves, free := Situation{Record: &Record{Epoch: 2}, Credential: 2}, Situation{Record: &Record{Epoch: 2}}
	bound := Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 3}}
	for name, test := range map[string]struct {
		noted  []metav1.Condition
		step   Step
		s      Situation
		have   v1alpha1.AINodeStatus
		reason string
		status metav1.ConditionStatus
	}{
		"nobody has forced anything":        {nil, Release, serves, own, "", ""},
		"it lets go and is not done":        {nil, Release, serves, v1alpha1.AINodeStatus{BindStatus: v1alpha1.Unbinding, ObservedEpoch: 2}, "", ""},
		"the machine is back":               {[]metav1.Condition{noted}, Release, serves, spoken, v1alpha1.ReasonCameBack, metav1.ConditionTrue},
		"its late report took the note":     {nil, Release, serves, spoken, v1alpha1.ReasonCameBack, metav1.ConditionTrue},
		"it has stopped its pods":           {[]metav1.Condition{back}, Rest, free, spoken, v1alpha1.ReasonStopped, metav1.ConditionFalse},
		"it was too quick to be seen at it": {[]metav1.Condition{noted}, Rest, free, spoken, v1alpha1.ReasonStopped, metav1.ConditionFalse},
		"it is bound again":                 {[]metav1.Condition{back}, Obtain, bound, spoken, "", ""},
		"it knows too little":               {[]metav1.Condition{noted}, Wait, serves, spoken, v1alpha1.ReasonUnboundByForce, metav1.ConditionTrue},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conditions := test.noted
			forced(&conditions, now, test.step, test.s, test.have)
			c := meta.FindStatusCondition(conditions, v1alpha1.ConditionForced)
			if test.reason == "" {
				require.Nil(t, c)
				return
			}
			require.Equal(t, test.reason, c.Reason)
			require.Equal(t, test.status, c.Status)
		})
	}
}
