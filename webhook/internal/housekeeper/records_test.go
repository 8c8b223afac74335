package housekeeper

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/v1alpha1"
)

func runtimeItems(list client.ObjectList) (items []client.Object, err error) {
	err = meta.EachListItem(list, func(o runtime.Object) error {
		items = append(items, o.(client.Object))
		return nil
	})
	return items, err
}

func config(name, uid string, nodes ...string) *v1alpha1.ClusterConfig {
	return &v1alpha1.ClusterConfig{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ClusterConfigSpec{ClusterUID: uid},
		Status: v1alpha1.ClusterConfigStatus{BoundNodes: nodes, KubernetesVersion: "v1.37.2"},
	}
}

func record(name, config string, epoch int64, status v1alpha1.BindStatus) *v1alpha1.AINode {
	return &v1alpha1.AINode{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: config, BindEpoch: epoch},
		Status: v1alpha1.AINodeStatus{BindStatus: status, ObservedEpoch: epoch},
	}
}

func (c *cluster) listed(name string) []string {
	c.t.Helper()
	var got v1alpha1.ClusterConfig
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: name}, &got))
	return got.Status.BoundNodes
}

// On a hub the record is proof enough, and the list is kept too.
func TestARecordThatSaysReleased(t *testing.T) {
	t.Parallel()
	nothing := map[string][]string{}
	for name, k := range map[string]struct {
		record *v1alpha1.AINode
		config *v1alpha1.ClusterConfig
		stands map[string][]string
		listed []string
	}{
		"released":           {record("ai-1", "", 3, v1alpha1.Unbound), config("prod", "here", "ai-0", "ai-1"), nothing, []string{"ai-0"}},
		"still letting go":   {record("ai-1", "", 3, v1alpha1.Unbinding), config("prod", "here", "ai-1"), everythingOf(map[string]int64{"ai-1": 3}), []string{"ai-1"}},
		"bound":              {record("ai-1", "prod", 3, v1alpha1.Bound), config("prod", "here", "ai-1"), everythingOf(map[string]int64{"ai-1": 3}), []string{"ai-1"}},
		"of another cluster": {record("ai-1", "", 3, v1alpha1.Unbound), config("prod", "there", "ai-1"), everythingOf(map[string]int64{"ai-1": 3}), []string{"ai-1"}},
		"listed by nobody":   {record("ai-1", "", 3, v1alpha1.Unbound), config("prod", "here", "ai-0"), everythingOf(map[string]int64{"ai-1": 3}), []string{"ai-0"}},
		"an epoch before":    {record("ai-1", "", 2, v1alpha1.Unbound), config("prod", "here", "ai-1"), everythingOf(map[string]int64{"ai-1": 3}), []string{"ai-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, append(bound("ai-1", 3), k.record, k.config)...)
			c.keep(false, "ai-1")
			require.Equal(t, everythingOf(map[string]int64{"ai-1": 3}), c.stands(), "a cluster that is no hub asks no record")
			c.keep(true, "ai-1")
			require.Equal(t, k.stands, c.stands())
			require.Equal(t, k.listed, c.listed("prod"))
		})
	}
}

// Somebody binds at the very moment at which the node is taken out of the list: bind
// found it listed and has written the record.
func TestWhoBindsMeanwhileStaysListed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, record("ai-1", "", 3, v1alpha1.Unbound), config("prod", "here", "ai-1"))
	c.afterUnlisting = func() {
		require.Empty(t, c.listed("prod"))
		var r v1alpha1.AINode
		require.NoError(t, c.Get(t.Context(), client.ObjectKey{Name: "ai-1"}, &r))
		r.Spec.ClusterConfigName, r.Spec.BindEpoch = "prod", 4
		require.NoError(t, c.Update(t.Context(), &r))
	}
	c.keep(true, "ai-1")
	require.Equal(t, []string{"ai-1"}, c.listed("prod"))
}
