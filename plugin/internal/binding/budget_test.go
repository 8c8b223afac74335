package binding

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// Which budget holds a pod up stands in the cause of the API server's refusal, which drain
// itself leaves out. It is named while the drain waits, with what goes past it, and at its end.
func TestTheBudgetThatHoldsADrainUpIsNamed(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	x.Timeout = time.Hour
	ctx := over{t.Context(), make(chan struct{})}
	var once sync.Once
	x.target.PrependReactor("create", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if _, ok := a.(k8stesting.CreateAction).GetObject().(*policyv1.Eviction); !ok {
			return false, nil, nil
		}
		err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		err.ErrStatus.Details.Causes = []metav1.StatusCause{
			{Type: policyv1.DisruptionBudgetCause, Message: "The disruption budget db needs 1 healthy pods and has 1 currently"},
		}
		once.Do(func() { close(ctx.up) }) // before drain has been told
		return true, nil, err
	})
	l, err := x.CheckLeaving(t.Context(), "ai-1", UnbindOptions{GracePeriodSeconds: -1})
	require.NoError(t, err)
	require.NoError(t, x.wantDrained(t.Context(), l))
	err = x.drain(ctx, l)
	require.ErrorContains(t, err, "not gone yet: pod ml/db-0 (The disruption budget db needs 1 healthy pods and has 1 currently)")
	require.Contains(t, way(err), "Go on without asking disruption budgets:  kubectl ainode unbind ai-1 --disable-eviction")

	told := x.told.String()
	require.Contains(t, told, "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget db needs 1 healthy pods and has 1 currently")
	require.Equal(t, 1, strings.Count(told, "ai-1  disruption budgets hold pods up. To ask them no more, interrupt this and type:  kubectl ainode unbind ai-1 --disable-eviction\n"+
		"ai-1  Or call it off:  kubectl ainode bind ai-1 --to prod\n"), told)
}
