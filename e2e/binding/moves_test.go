package binding

import (
	"testing"

	"github.com/stretchr/testify/require"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// testMoves binds a node to each cluster and moves one of them to the other and back,
// while the other node runs pods and notices nothing.
func (s *stage) testMoves(t *testing.T) {
	s.ainode(t, s.a, "import", s.a.name)
	s.ainode(t, s.b, "import", s.b.name)
	s.bind(t, s.one, s.a)
	s.bind(t, s.two, s.b)
	stays := s.b.run(t, "stays", s.two)
	s.a.run(t, "goes", s.one)
	var node corev1.Node
	require.NoError(t, s.b.Get(t.Context(), client.ObjectKey{Name: s.two.node}, &node))

	list := s.ainode(t, s.a, "list")
	require.Regexp(t, `(?m)^ai-one +Bound +a `, list)
	require.Regexp(t, `(?m)^ai-two +Bound +b `, list)
	configs := s.ainode(t, s.a, "configs", "-o", "wide")
	require.Regexp(t, `(?m)^a .*ai-one`, configs)
	require.Regexp(t, `(?m)^b .*ai-two`, configs)
	require.Contains(t, s.refused(t, s.a, "delete-config", s.a.name), "kubectl ainode unbind ai-one")
	require.Contains(t, s.refused(t, s.b, "delete-config", s.b.name), "kubectl ainode unbind ai-two")
	require.Contains(t, s.refused(t, s.b, "bind", s.one.node, "--to", s.b.name), "kubectl ainode unbind ai-one", "a move goes through unbound")
	require.Contains(t, s.refused(t, s.b, "unbind", s.one.node), "is of another cluster", "it is taken out of the cluster that it is in")

	s.unbind(t, s.one, s.a)
	s.requireNothing(t, s.one, s.a)
	require.Contains(t, s.ainode(t, s.a, "delete-config", s.a.name), s.a.name)
	require.NotRegexp(t, `(?m)^a `, s.ainode(t, s.a, "configs"))
	s.bind(t, s.one, s.b)
	s.requireBound(t, s.one, s.b, 2)
	s.b.run(t, "goes", s.one)
	require.Contains(t, s.ainode(t, s.b, "bind", s.two.node, "--to", s.b.name), "unchanged")

	s.unbind(t, s.one, s.b)
	s.requireNothing(t, s.one, s.b)
	s.ainode(t, s.a, "import", s.a.name)
	s.bind(t, s.one, s.a)
	s.requireBound(t, s.one, s.a, 3)
	s.a.run(t, "goes", s.one)
	s.unbind(t, s.one, s.a)
	s.requireNothing(t, s.one, s.a)

	s.requireBound(t, s.two, s.b, 1)
	s.b.requireSame(t, stays)
	var after corev1.Node
	require.NoError(t, s.b.Get(t.Context(), client.ObjectKey{Name: s.two.node}, &after))
	require.Equal(t, node.UID, after.UID)
}
