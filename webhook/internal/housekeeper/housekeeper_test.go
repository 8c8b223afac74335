package housekeeper

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// cluster is a target, and a hub where it has records.
type cluster struct {
	client.WithWatch
	t *testing.T
	// afterUnlisting runs once, when a config's list has been written.
	afterUnlisting func()
}

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	c := &cluster{t: t}
	c.WithWatch = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithObjects(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "here"}}).
		WithStatusSubresource(&v1alpha1.AINode{}, &v1alpha1.ClusterConfig{}).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithInterceptorFuncs(interceptor.Funcs{SubResourceUpdate: func(ctx context.Context, under client.Client, sub string, o client.Object, options ...client.SubResourceUpdateOption) error {
			err := under.SubResource(sub).Update(ctx, o, options...)
			if then := c.afterUnlisting; then != nil {
				c.afterUnlisting = nil
				then()
			}
			return err
		}}).Build()
	return c
}

func (c *cluster) keep(hub bool, node string) {
	c.t.Helper()
	h, err := New(Options{Client: c, Live: c, Hub: hub})
	require.NoError(c.t, err)
	result, err := h.Reconcile(c.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: node}})
	require.NoError(c.t, err)
	require.Zero(c.t, result)
}

// stands are the names of everything there is, by kind.
func (c *cluster) stands() map[string][]string {
	c.t.Helper()
	found := map[string][]string{}
	for kind, list := range map[string]client.ObjectList{
		"roles": &rbacv1.RoleList{}, "rolebindings": &rbacv1.RoleBindingList{}, "clusterroles": &rbacv1.ClusterRoleList{},
		"clusterrolebindings": &rbacv1.ClusterRoleBindingList{}, "accounts": &corev1.ServiceAccountList{}, "nodes": &corev1.NodeList{},
		"pods": &corev1.PodList{}, "leases": &coordinationv1.LeaseList{}, "requests": &certificatesv1.CertificateSigningRequestList{},
	} {
		require.NoError(c.t, c.List(c.t.Context(), list))
		items, err := runtimeItems(list)
		require.NoError(c.t, err)
		for _, o := range items {
			found[kind] = append(found[kind], o.GetName())
		}
	}
	return found
}

// bound is all that stands of a bound node.
func bound(node string, epoch int64) []client.Object {
	return append(identityOf(node, epoch),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: node, Labels: map[string]string{contract.NodeLabel: contract.NodeLabelValue},
			Annotations: map[string]string{contract.BindEpochAnnotation: strconv.FormatInt(epoch, 10)},
		}},
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "on-" + node}, Spec: corev1.PodSpec{NodeName: node}},
		&certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "of-" + node},
			Spec: certificatesv1.CertificateSigningRequestSpec{Username: identity.NodeUser(node), SignerName: certificatesv1.KubeletServingSignerName}},
	)
}

func identityOf(node string, epoch int64) []client.Object {
	meta := metav1.ObjectMeta{
		Name: identity.Target(node, epoch), Labels: map[string]string{contract.NodeNameLabel: node},
		Annotations: map[string]string{contract.BindEpochAnnotation: strconv.FormatInt(epoch, 10)},
	}
	inside := meta
	inside.Namespace = contract.SystemNamespace
	return []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: meta}, &rbacv1.ClusterRoleBinding{ObjectMeta: meta},
		&corev1.ServiceAccount{ObjectMeta: inside}, &rbacv1.Role{ObjectMeta: inside}, &rbacv1.RoleBinding{ObjectMeta: inside},
	}
}

func (c *cluster) mark(node string, epoch int64) {
	c.t.Helper()
	var n corev1.Node
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: node}, &n))
	n.Annotations[contract.ReleasedEpochAnnotation] = strconv.FormatInt(epoch, 10)
	require.NoError(c.t, c.Update(c.t.Context(), &n))
}

// everythingOf is what stands if exactly the given nodes stand with the given epochs.
func everythingOf(nodes map[string]int64) map[string][]string {
	all := map[string][]string{}
	for node, epoch := range nodes {
		for _, kind := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings", "accounts"} {
			all[kind] = append(all[kind], identity.Target(node, epoch))
		}
		all["nodes"], all["leases"] = append(all["nodes"], node), append(all["leases"], node)
		all["pods"], all["requests"] = append(all["pods"], "on-"+node), append(all["requests"], "of-"+node)
	}
	return all
}

func TestAMarkedNodeIsClearedUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, append(bound("ai-1", 3), bound("ai-2", 1)...)...)
	for _, o := range identityOf("ai-1", 2) { // of a walk that broke off long ago
		require.NoError(t, c.Create(t.Context(), o))
	}
	before := c.stands()
	c.keep(false, "ai-1")
	require.Equal(t, before, c.stands(), "a node that says nothing is bound, as far as anybody knows")
	c.mark("ai-1", 2)
	c.keep(false, "ai-1")
	require.Equal(t, before, c.stands(), "it speaks of an earlier life")
	c.mark("ai-1", 3)
	c.keep(false, "ai-1")
	require.Equal(t, everythingOf(map[string]int64{"ai-2": 1}), c.stands())
	c.keep(false, "ai-1") // again, as after a crash: nothing to do
	c.keep(false, "ai-none")
	require.Equal(t, everythingOf(map[string]int64{"ai-2": 1}), c.stands())
}

// Bind makes the new identity before the machine knows of it: the old Node stands.
func TestANodeThatIsBeingBoundAgainIsLeft(t *testing.T) {
	t.Parallel()
	c := newCluster(t, append(bound("ai-1", 3), identityOf("ai-1", 4)...)...)
	c.mark("ai-1", 3)
	c.keep(false, "ai-1")
	left := everythingOf(map[string]int64{"ai-1": 3})
	for _, kind := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings", "accounts"} {
		left[kind] = []string{identity.Target("ai-1", 4)}
	}
	require.Equal(t, left, c.stands())
}

// after is what has a node looked at, and when.
type queue struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	added map[string]time.Duration
}

func (q queue) AddAfter(r reconcile.Request, wait time.Duration) { q.added[r.Name] = wait }

func TestThePluginHasAHeadStart(t *testing.T) {
	t.Parallel()
	q := queue{added: map[string]time.Duration{}}
	h := after(headStart, func(o client.Object) bool { _, ok := identity.ReleasedEpoch(o); return ok })
	node := func(name, released string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			contract.BindEpochAnnotation: "1", contract.ReleasedEpochAnnotation: released,
		}}}
	}
	h.Create(t.Context(), event.CreateEvent{Object: node("ai-before", "1")}, q)
	h.Update(t.Context(), event.UpdateEvent{ObjectOld: node("ai-now", ""), ObjectNew: node("ai-now", "1")}, q)
	h.Update(t.Context(), event.UpdateEvent{ObjectOld: node("ai-bound", ""), ObjectNew: node("ai-bound", "")}, q)
	require.Equal(t, map[string]time.Duration{"ai-before": headStart, "ai-now": headStart}, q.added)
}
