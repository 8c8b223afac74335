package nodestatus

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testclock "k8s.io/utils/clock/testing"
)

func ready(t *testing.T, n *corev1.Node) corev1.NodeCondition {
	t.Helper()
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	t.Fatal("the Node does not say whether it is ready")
	return corev1.NodeCondition{}
}

// The API is away for an hour; meanwhile the cluster has given the Node up. One write
// puts it right, and tells of no more than there is to tell.
func TestTheNodeCatchesUp(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	r := registrar(client)
	clock := r.Clock.(*testclock.FakeClock)
	require.NoError(t, r.Register(ctx))

	away := true
	client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away, nil, apierrors.NewServiceUnavailable("away")
	})
	tried := 0
	for range time.Hour / checkPeriod {
		clock.Step(checkPeriod)
		if err := r.sync(ctx); err != nil {
			require.ErrorContains(t, err, "away")
			tried++
		}
	}
	require.Positive(t, tried, "it goes on trying")
	away = false

	given, err := client.CoreV1().Nodes().Get(ctx, "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	for i := range given.Status.Conditions {
		given.Status.Conditions[i].Status, given.Status.Conditions[i].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
		given.Status.Conditions[i].LastTransitionTime = metav1.NewTime(clock.Now())
	}
	given, err = client.CoreV1().Nodes().UpdateStatus(ctx, given, metav1.UpdateOptions{})
	require.NoError(t, err)
	r.saw(given)
	clock.Step(checkPeriod)
	client.ClearActions()
	require.NoError(t, r.sync(ctx))
	require.NoError(t, r.sync(ctx))
	require.Len(t, client.Actions(), 1)
	is := ready(t, r.Node())
	require.Equal(t, corev1.ConditionTrue, is.Status)
	require.True(t, clock.Now().Equal(is.LastTransitionTime.Time) && clock.Now().Equal(is.LastHeartbeatTime.Time), "%v", is)
}

func TestARebootIsTold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	client := fake.NewClientset()
	told := 0
	boot := func(id string) *Registrar {
		r := registrar(client)
		r.Facts.Machine.BootID, r.Rebooted = id, func() { told++ }
		return r
	}
	require.NoError(t, boot("one").Register(ctx))
	require.NoError(t, boot("one").Register(ctx))
	require.Zero(t, told, "an agent that starts again is no boot")
	r := boot("two")
	require.NoError(t, r.Register(ctx))
	require.NoError(t, r.sync(ctx))
	require.Equal(t, 1, told)
	require.Equal(t, "two", r.Node().Status.NodeInfo.BootID)
}
