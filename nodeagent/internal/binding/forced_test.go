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
	free, bound := Situation{Record: &Record{Epoch: 2}}, Situation{Record: &Record{ClusterConfigName: "prod", Epoch: 3}}
	for name, test := range map[string]struct {
		have   []metav1.Condition
		step   Step
		s      Situation
		reason string
		status metav1.ConditionStatus
	}{
		"nobody has forced anything":        {nil, Release, free, "", ""},
		"the machine is back":               {[]metav1.Condition{noted}, Release, free, v1alpha1.ReasonCameBack, metav1.ConditionTrue},
		"it has stopped its pods":           {[]metav1.Condition{back}, Rest, free, v1alpha1.ReasonStopped, metav1.ConditionFalse},
		"it was too quick to be seen at it": {[]metav1.Condition{noted}, Rest, free, v1alpha1.ReasonStopped, metav1.ConditionFalse},
		"it is bound again":                 {[]metav1.Condition{back}, Obtain, bound, "", ""},
		"it is not the holder of the name":  {[]metav1.Condition{noted}, Wait, free, v1alpha1.ReasonUnboundByForce, metav1.ConditionTrue},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conditions := test.have
			forced(&conditions, now, test.step, test.s)
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
