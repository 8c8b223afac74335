package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"

	"github.com/ainode/ainode/api/v1alpha1"
)

// A machine that lacks its address runs its pods, and is not ready for no other reason: that
// is one finding, and the address's.
func TestAMachineThatLacksItsAddress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ chosen, what, fix string }{
		"chosen at bind":         {"10.9.0.7", "10.9.0.7, chosen at bind, is not the machine's any more", "Or bind it at another address:  kubectl ainode unbind ai-1 && kubectl ainode bind ai-1 --to prod --address ADDRESS"},
		"the agent's own choice": {"", "10.0.0.5, which its agent began with, is not the machine's any more", "Or have the agent take another (one that --node-ip names must be the machine's):  systemctl restart ainode-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := &v1alpha1.AINode{
				ObjectMeta: metav1.ObjectMeta{Name: "ai-1"},
				Spec:       v1alpha1.AINodeSpec{ClusterConfigName: "prod", Address: c.chosen},
				Status: v1alpha1.AINodeStatus{PublicKey: "k", Address: "10.0.0.5", Conditions: []metav1.Condition{
					{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonAddressMissing, Message: "address is gone"},
				}},
			}
			if c.chosen != "" {
				node.Status.Address = c.chosen
			}
			// --pre --address names another: it is not that one which the machine lacks.
			saw, flaws, err := address(t.Context(), &sight{Case: &Case{Before: true, Address: "10.1.1.1"}, node: node, away: true, records: func() ([]v1alpha1.AINode, error) { return nil, nil }})
			require.NoError(t, err)
			require.Empty(t, saw)
			require.Len(t, flaws, 1)
			require.Equal(t, Error, flaws[0].severity)
			require.Equal(t, c.what, flaws[0].what)
			require.Contains(t, flaws[0].why, "pods run on")
			require.Equal(t, []string{"On the machine, see what it has, and give it back:  ip address", c.fix}, flaws[0].fix)

			saw, flaws, err = agentReady(t.Context(), &sight{node: node})
			require.NoError(t, err)
			require.Empty(t, flaws)
			require.Equal(t, "its runtime and cards answer", saw)
		})
	}
}

func TestAMachineThatIsNotReady(t *testing.T) {
	t.Parallel()
	node := &v1alpha1.AINode{Status: v1alpha1.AINodeStatus{Conditions: []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: "Problem", Message: "containerd does not answer"},
	}}}
	_, flaws, err := agentReady(t.Context(), &sight{node: node})
	require.NoError(t, err)
	require.Len(t, flaws, 1)
	require.Contains(t, flaws[0].what, "containerd does not answer")
	require.Contains(t, flaws[0].why, "no pod starts there")
}

// A complaint outlives the machine that made it: it says since when it stands, and when it
// goes by itself.
func TestAComplaintSaysWhenItIsOver(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	for ago, c := range map[time.Duration]struct{ what, fix string }{
		45 * time.Second: {"it said so last 45s ago", "If that one is stopped already, this is over in 75s: who has the name drops the complaint 2m after it was made last"},
		3 * time.Minute:  {"it said so last 3m ago", "If that one is stopped already, this is over once the agent of who has the name runs: who has the name drops the complaint 2m after it was made last"},
	} {
		node := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{Name: "ai-1"}, Status: v1alpha1.AINodeStatus{Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionConflict, Status: metav1.ConditionTrue, Reason: "AnotherMachine", Message: "machine m2 claims this name while m1 holds it; it starts nothing",
			LastTransitionTime: metav1.NewTime(now.Add(-ago)),
		}}}}
		_, flaws, err := conflict(t.Context(), &sight{Case: &Case{Clock: testclock.NewFakePassiveClock(now)}, node: node})
		require.NoError(t, err)
		require.Len(t, flaws, 1)
		require.Contains(t, flaws[0].what, "machine m2 claims this name while m1 holds it")
		require.Contains(t, flaws[0].what, c.what)
		require.Contains(t, flaws[0].fix, c.fix)
	}
}

// What was chosen at bind its agent can't change: it is bound anew for that.
func TestAnAddressThatWasChosenIsChangedByBinding(t *testing.T) {
	t.Parallel()
	of := func(name string) v1alpha1.AINode {
		return v1alpha1.AINode{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", Address: "10.9.0.7"},
			Status: v1alpha1.AINodeStatus{PublicKey: "k", Address: "10.9.0.7", Addresses: []string{"10.0.0.5", "10.9.0.7"}},
		}
	}
	one, two := of("ai-1"), of("ai-2")
	s := &sight{
		Case: &Case{}, node: &one, records: func() ([]v1alpha1.AINode, error) { return []v1alpha1.AINode{one, two}, nil },
		configs: func() ([]v1alpha1.ClusterConfig, error) { return nil, nil }, uid: func() (string, error) { return "u", nil },
	}
	_, flaws, err := address(t.Context(), s)
	require.NoError(t, err)
	require.Len(t, flaws, 1)
	require.Equal(t, "10.9.0.7 is AI node ai-2's address too", flaws[0].what)
	require.Equal(t, []string{"Bind it at another address:  kubectl ainode unbind ai-1 && kubectl ainode bind ai-1 --to prod --address ADDRESS"}, flaws[0].fix)
}
