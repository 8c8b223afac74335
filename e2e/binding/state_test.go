package binding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// record is the hub's record of a machine's node.
func (s *stage) record(t *testing.T, m machine) *v1alpha1.AINode {
	t.Helper()
	var record v1alpha1.AINode
	require.NoError(t, s.a.Get(t.Context(), client.ObjectKey{Name: m.node}, &record))
	return &record
}

func (s *stage) boundNodes(t *testing.T, p *plane) []string {
	t.Helper()
	var config v1alpha1.ClusterConfig
	require.NoError(t, s.a.Get(t.Context(), client.ObjectKey{Name: p.name}, &config))
	return config.Status.BoundNodes
}

// identities are what stands for a node on a cluster: one name for each epoch, and
// under it each kind that there is.
func (p *plane) identities(t *testing.T, node string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for kind, list := range map[string]client.ObjectList{
		"ServiceAccount": &corev1.ServiceAccountList{}, "ClusterRole": &rbacv1.ClusterRoleList{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBindingList{},
		"Role": &rbacv1.RoleList{}, "RoleBinding": &rbacv1.RoleBindingList{},
	} {
		require.NoError(t, p.List(t.Context(), list, client.MatchingLabels{contract.NodeNameLabel: node}))
		require.NoError(t, meta.EachListItem(list, func(o runtime.Object) error {
			// The hub's own account of the node has no epoch.
			if o := o.(client.Object); o.GetAnnotations()[contract.BindEpochAnnotation] != "" {
				found[o.GetName()] = append(found[o.GetName()], kind)
			}
			return nil
		}))
	}
	return found
}

// requireBound demands that a node serves one binding and nothing stands of another.
func (s *stage) requireBound(t *testing.T, m machine, to *plane, epoch int64) {
	t.Helper()
	s.awaitListed(t, m, string(v1alpha1.Bound))
	record := s.record(t, m)
	require.Equal(t, to.name, record.Spec.ClusterConfigName)
	require.Equal(t, epoch, record.Spec.BindEpoch, "one epoch, however often it was interrupted")
	require.Equal(t, epoch, record.Status.ObservedEpoch)
	require.Contains(t, s.boundNodes(t, to), m.node)
	ids := to.identities(t, m.node)
	require.Len(t, ids, 1, "%v", ids)
	require.Len(t, ids[identity.Target(m.node, epoch)], 5, "%v", ids)

	var nodes corev1.NodeList
	require.NoError(t, to.List(t.Context(), &nodes, client.MatchingLabels{contract.NodeLabel: contract.NodeLabelValue}))
	named := slices.DeleteFunc(nodes.Items, func(n corev1.Node) bool {
		return !slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == m.Address })
	})
	require.Len(t, named, 1, "one Node for one machine")
	require.Equal(t, m.node, named[0].Name)
	require.Equal(t, strconv.FormatInt(epoch, 10), named[0].Annotations[contract.BindEpochAnnotation])
	require.True(t, ready(&named[0]))
}

// requireNothing demands that nothing of a node is left on a cluster, nor of the
// binding on the machine and the hub.
func (s *stage) requireNothing(t *testing.T, m machine, on *plane) {
	t.Helper()
	ctx := t.Context()
	require.True(t, apierrors.IsNotFound(on.Get(ctx, client.ObjectKey{Name: m.node}, &corev1.Node{})))
	require.True(t, apierrors.IsNotFound(on.Get(ctx, client.ObjectKey{Namespace: corev1.NamespaceNodeLease, Name: m.node}, &coordinationv1.Lease{})))
	require.Empty(t, on.identities(t, m.node))
	var requests certificatesv1.CertificateSigningRequestList
	require.NoError(t, on.List(ctx, &requests))
	for _, r := range requests.Items {
		require.NotEqual(t, identity.NodeUser(m.node), r.Spec.Username, r.Name)
	}
	require.Empty(t, on.podsOf(t, m.node))
	require.NotContains(t, s.boundNodes(t, on), m.node)

	record := s.record(t, m)
	require.Empty(t, record.Spec.ClusterConfigName)
	require.False(t, record.Spec.Draining)
	require.Equal(t, v1alpha1.Unbound, record.Status.BindStatus)
	require.Equal(t, record.Spec.BindEpoch, record.Status.ObservedEpoch)
	require.Empty(t, s.running(t, m), "a process outlived its binding")
	s.on(t, m, "test", "!", "-e", stateDir+"/target")
}

func (p *plane) podsOf(t *testing.T, node string) []corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, p.List(t.Context(), &pods, client.MatchingFields{"spec.nodeName": node}))
	return pods.Items
}

// running are the containers whose processes live on a machine, pauses too.
func (s *stage) running(t *testing.T, m machine) []string {
	t.Helper()
	out, err := s.a.Run(t.Context(), "ctr", "--address", m.ContainerdSocket, "--namespace", "k8s.io", "tasks", "ls", "-q")
	require.NoError(t, err)
	ids := strings.Fields(out)
	slices.Sort(ids)
	return ids
}

// run makes a pod for a machine's node, waits until it runs, and returns it. It ends
// at once when it is told to.
func (p *plane) run(t *testing.T, name string, m machine) corev1.Pod {
	t.Helper()
	require.NoError(t, p.Create(t.Context(), pod(name, m)))
	return p.awaitRunning(t, name)
}

func pod(name string, m machine) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			NodeName: m.node, TerminationGracePeriodSeconds: ptr.To[int64](1), AutomountServiceAccountToken: ptr.To(false),
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, // stays while its node is not seen
			Containers: []corev1.Container{{
				Name: "c", Image: tools, ImagePullPolicy: corev1.PullNever,
				Command: []string{"sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1; done"},
			}},
		},
	}
}

func (p *plane) awaitRunning(t *testing.T, name string) (pod corev1.Pod) {
	t.Helper()
	eventually(t, "pod "+name+" runs", func() error {
		if err := p.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, &pod); err != nil {
			return err
		}
		return isRunning(&pod)
	})
	return pod
}

func isRunning(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("it is %s: %+v", pod.Status.Phase, pod.Status.Conditions)
}

// requireSame demands that a pod runs on as it was: the same object, the same
// container, never restarted.
func (p *plane) requireSame(t *testing.T, before corev1.Pod) {
	t.Helper()
	after := p.awaitRunning(t, before.Name)
	require.Equal(t, before.UID, after.UID)
	require.Equal(t, before.Status.ContainerStatuses[0].ContainerID, after.Status.ContainerStatuses[0].ContainerID)
	require.Zero(t, after.Status.ContainerStatuses[0].RestartCount)
}

// container is the id, in its runtime, of a pod's one container.
func container(pod corev1.Pod) string {
	return strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
}

// awaitGone waits until the API has no such pod any more.
func (p *plane) awaitGone(t *testing.T, name string) {
	t.Helper()
	eventually(t, "pod "+name+" is gone", func() error {
		err := p.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, &corev1.Pod{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
}

// awaitNode waits until a Node is so.
func (p *plane) awaitNode(t *testing.T, m machine, what string, so func(*corev1.Node) bool) (node corev1.Node) {
	t.Helper()
	eventually(t, "node "+m.node+" "+what, func() error {
		if err := p.Get(t.Context(), client.ObjectKey{Name: m.node}, &node); err != nil {
			return err
		}
		if !so(&node) {
			return fmt.Errorf("it is %+v", node.Status.Conditions)
		}
		return nil
	})
	return node
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// awaitListed waits until kubectl ainode list shows a node so.
func (s *stage) awaitListed(t *testing.T, m machine, status string) {
	t.Helper()
	eventually(t, m.node+" is listed as "+status, func() error {
		out, err := s.try(context.WithoutCancel(t.Context()), s.a, "list")
		for line := range strings.Lines(out) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == m.node && fields[1] == status {
				return err
			}
		}
		return errors.Join(err, errors.New(out))
	})
}

// released is how often a machine's agent has said that it gives everything back.
func (s *stage) released(t *testing.T, m machine) int {
	t.Helper()
	return strings.Count(s.log(t, m), `"Releasing: every pod is stopped and the credential wiped"`)
}

// awaitCondition waits until a node's record has a condition.
func (s *stage) awaitCondition(t *testing.T, m machine, kind string, status metav1.ConditionStatus, reason string) (message string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s=%s (%s) of %s", kind, status, reason, m.node), func() error {
		conditions := s.record(t, m).Status.Conditions
		c := meta.FindStatusCondition(conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("it has %+v", conditions)
		}
		message = c.Message
		return nil
	})
	return message
}
