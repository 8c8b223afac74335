package binding

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// two are two people at work on AI node ai-1, which is bound to config prod in epoch 4.
// One walks, and the other does what other says, once, when the first has got so far.
type two struct {
	*Walk
	records client.WithWatch
	target  *fake.Clientset
	told    *bytes.Buffer
}

func newTwo(t *testing.T, funcs interceptor.Funcs) *two {
	t.Helper()
	record := &v1alpha1.AINode{
		ObjectMeta: metav1.ObjectMeta{Name: "ai-1", UID: "r"}, Spec: v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: 4},
		Status: v1alpha1.AINodeStatus{BindStatus: v1alpha1.Bound, ObservedEpoch: 4, PublicKey: handover.PublicKey{}.String()},
	}
	config := func(name string, bound ...string) *v1alpha1.ClusterConfig {
		return &v1alpha1.ClusterConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.ClusterConfigStatus{BoundNodes: bound}}
	}
	x := &two{told: &bytes.Buffer{}}
	x.records = crfake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(record, config("prod", "ai-1"), config("other")).
		WithStatusSubresource(&v1alpha1.AINode{}, &v1alpha1.ClusterConfig{}).
		WithIndex(&v1alpha1.AINode{}, metav1.ObjectNameField, func(o client.Object) []string { return []string{o.GetName()} }).
		WithInterceptorFuncs(funcs).Build()
	x.target = fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ai-1", Annotations: map[string]string{contract.BindEpochAnnotation: "4"}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "db-0"}, Spec: corev1.PodSpec{NodeName: "ai-1"}},
	)
	x.target.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "pods/eviction", Kind: "Eviction", Group: "policy", Version: "v1"},
	}}}
	x.Walk = &Walk{
		Hub: &kube.Cluster{Records: x.records, Core: fake.NewClientset()}, Target: &kube.Cluster{Core: x.target},
		Progress: output.NewProgress(x.told), Clock: clock.RealClock{}, Timeout: 20 * time.Second,
	}
	return x
}

func (x *two) record(t *testing.T) *v1alpha1.AINode {
	t.Helper()
	var record v1alpha1.AINode
	require.NoError(t, x.records.Get(t.Context(), client.ObjectKey{Name: "ai-1"}, &record))
	return &record
}

// other writes what another person or the agent writes.
func (x *two) other(t *testing.T, change func(*v1alpha1.AINode)) {
	t.Helper()
	record := x.record(t)
	change(record)
	status := record.Status
	require.NoError(t, x.records.Update(t.Context(), record))
	record.Status = status
	require.NoError(t, x.records.Status().Update(t.Context(), record))
}

func calledOff(r *v1alpha1.AINode) { r.Spec.Draining = false }

func released(r *v1alpha1.AINode) {
	release(&r.Spec)
	r.Status.BindStatus, r.Status.ObservedEpoch = v1alpha1.Unbound, r.Spec.BindEpoch
}

func boundElsewhere(r *v1alpha1.AINode) {
	r.Spec = v1alpha1.AINodeSpec{ClusterConfigName: "other", BindEpoch: 5, SinceEpoch: 5}
	r.Status.BindStatus, r.Status.ObservedEpoch = v1alpha1.Bound, 5
}

// evictions answers each of the budget's refusals with what befalls.
func (x *two) evictions(refused bool, befalls func(n int)) (count func() int) {
	var mu sync.Mutex
	n := 0
	x.target.PrependReactor("create", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
		eviction, ok := a.(k8stesting.CreateAction).GetObject().(*policyv1.Eviction)
		if !ok {
			return false, nil, nil
		}
		mu.Lock()
		defer mu.Unlock()
		n++
		befalls(n)
		if refused {
			return true, nil, apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 1)
		}
		return true, nil, x.target.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), eviction.Namespace, eviction.Name)
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func (x *two) leave(t *testing.T, o UnbindOptions) error {
	t.Helper()
	l, err := x.CheckLeaving(t.Context(), "ai-1", o)
	require.NoError(t, err)
	return x.Leave(t.Context(), l)
}

func (x *two) listed(t *testing.T, config string) bool {
	t.Helper()
	var c v1alpha1.ClusterConfig
	require.NoError(t, x.records.Get(t.Context(), client.ObjectKey{Name: config}, &c))
	return slices.Contains(c.Status.BoundNodes, "ai-1")
}

func way(err error) string { return strings.Join(remedy.Lines(err), "\n") }

// Whoever calls an unbinding off, as its help offers, has called it off: the one that runs
// evicts nothing more and releases nothing.
func TestARunningUnbindIsCalledOff(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	evictions := x.evictions(true, func(n int) {
		if n == 1 {
			x.other(t, calledOff)
		}
	})
	err := x.leave(t, UnbindOptions{GracePeriodSeconds: -1})
	require.ErrorContains(t, err, `the unbinding of AI node "ai-1" was called off meanwhile`)
	require.ErrorContains(t, err, `it stays bound to "prod"`)
	require.Equal(t, "Unbind it all the same:  kubectl ainode unbind ai-1", way(err))
	require.Equal(t, 1, evictions())
	require.Equal(t, v1alpha1.AINodeSpec{ClusterConfigName: "prod", BindEpoch: 4}, x.record(t).Spec)
}

// Also in the moment when the last pod has gone, and whether or not they are evicted.
func TestAnUnbindIsCalledOffBeforeTheRelease(t *testing.T) {
	t.Parallel()
	for name, disable := range map[string]bool{"evicted": false, "deleted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{})
			x.evictions(false, func(int) { x.other(t, calledOff) })
			x.target.PrependReactor("delete", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
				x.other(t, calledOff)
				return false, nil, nil
			})
			err := x.leave(t, UnbindOptions{DisableEviction: disable, GracePeriodSeconds: -1})
			require.ErrorContains(t, err, "was called off meanwhile")
			require.Equal(t, "prod", x.record(t).Spec.ClusterConfigName)
		})
	}
}

// Called off between the record's writing and the cordon, the cordon does not stay.
func TestTheCordonOfAnUnbindThatIsCalledOffGoes(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	first := true
	x.target.PrependReactor("patch", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
		if first {
			first = false
			x.other(t, calledOff)
		}
		return false, nil, nil
	})
	evictions := x.evictions(false, func(int) {})
	require.ErrorContains(t, x.leave(t, UnbindOptions{GracePeriodSeconds: -1}), "was called off meanwhile")
	require.Zero(t, evictions())
	node, err := x.target.CoreV1().Nodes().Get(t.Context(), "ai-1", metav1.GetOptions{})
	require.NoError(t, err)
	require.False(t, node.Spec.Unschedulable)
}

// An unbind that has slept, while the node was unbound and bound again, is over: pods of
// the other binding are not its to send away, nor is that to be released.
func TestAnUnbindLeavesLaterBindingsAlone(t *testing.T) {
	t.Parallel()
	again := func(r *v1alpha1.AINode) {
		boundElsewhere(r)
		r.Spec.ClusterConfigName, r.Spec.Draining = "prod", true // and somebody unbinds that one
	}
	// A person noted by the API server as the program that they use.
	noted := func(r *v1alpha1.AINode) {
		boundElsewhere(r)
		at := metav1.NewTime(time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC))
		r.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl-ainode", Time: &at}}
	}
	for name, c := range map[string]struct {
		refused bool
		becomes func(*v1alpha1.AINode)
		says    string
	}{
		"drained":             {false, boundElsewhere, `was bound to "other" meanwhile, in epoch 5`},
		"still draining":      {true, noted, `was bound to "other" meanwhile, in epoch 5`},
		"the same config":     {false, again, `was bound to "prod" meanwhile, in epoch 5`},
		"and released, after": {false, func(r *v1alpha1.AINode) { boundElsewhere(r); released(r) }, "was bound again and released meanwhile, up to epoch 5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{})
			var after v1alpha1.AINodeSpec
			evictions := x.evictions(c.refused, func(n int) {
				if n == 1 {
					x.other(t, c.becomes)
					after = x.record(t).Spec
				}
			})
			err := x.leave(t, UnbindOptions{GracePeriodSeconds: -1})
			require.ErrorContains(t, err, c.says)
			require.Equal(t, "See what has become of it:  kubectl ainode describe ai-1", way(err))
			require.Equal(t, after, x.record(t).Spec)
			require.Equal(t, 1, evictions())
		})
	}

	for name, o := range map[string]UnbindOptions{
		"before it begins": {GracePeriodSeconds: -1}, "forced": {MachineGone: true, GracePeriodSeconds: -1}, "without its cluster": {ClusterGone: true, GracePeriodSeconds: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{})
			l, err := x.CheckLeaving(t.Context(), "ai-1", o)
			require.NoError(t, err)
			x.other(t, boundElsewhere)
			after := x.record(t)
			require.ErrorContains(t, x.Leave(t.Context(), l), `was bound to "other" meanwhile, in epoch 5`)
			require.Equal(t, after.Spec, x.record(t).Spec)
			require.Equal(t, after.Status, x.record(t).Status)
		})
	}
}

// A record that was removed and added again has epochs of its own, which may be the same.
func TestARecordOfTheSameNameIsAnother(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	l, err := x.CheckLeaving(t.Context(), "ai-1", UnbindOptions{})
	require.NoError(t, err)
	again := x.record(t)
	require.NoError(t, l.same(again))
	again.UID = "another"
	require.ErrorContains(t, l.same(again), `AI node "ai-1" was removed and added again meanwhile`)
}

// A binding that somebody else has ended, be it its own end, is what both wanted: no more
// pods are evicted, which the agent ends, and the rest is done.
func TestAnUnbindGoesOnAfterAnothersRelease(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	evictions := x.evictions(true, func(n int) {
		if n == 1 {
			x.other(t, released)
		}
	})
	require.NoError(t, x.leave(t, UnbindOptions{GracePeriodSeconds: -1}))
	require.Equal(t, 1, evictions())
	require.Contains(t, x.told.String(), "its binding was ended meanwhile")
	require.False(t, x.listed(t, "prod"))
	nodes, err := x.target.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, nodes.Items)
}

// binding has somebody bind ai-1 who has checked it.
func (x *two) binding(t *testing.T) (*Plan, error) {
	t.Helper()
	p := &Plan{Request: Request{Node: "ai-1", Config: "prod"}, config: &v1alpha1.ClusterConfig{}}
	_, err := x.Bind(t.Context(), p)
	return p, err
}

// Between the look and the claim another machine has been given the name.
func TestABindingIsOfTheMachineThatWasLookedAt(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	x.other(t, func(r *v1alpha1.AINode) {
		released(r)
		r.Status.PublicKey = handover.PublicKey{1}.String()
	})
	_, err := x.binding(t)
	require.ErrorContains(t, err, "another machine has joined")
	record, err := x.Hub.AINode(t.Context(), "ai-1")
	require.NoError(t, err)
	require.Empty(t, record.Spec.ClusterConfigName)
}

// A bind that comes while the node is being unbound, having seen it bound, leaves the list
// alone: by it unbind finds what is left to be done.
func TestAFailedBindKeepsWhatUnbindGoesBy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		is     func(*v1alpha1.AINode)
		node   bool
		listed bool
	}{
		"the machine has not let go": {func(r *v1alpha1.AINode) { release(&r.Spec) }, false, true},
		"its node stands":            {released, true, true},
		"nothing is left":            {released, false, false},
		"bound to another":           {boundElsewhere, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
				if record, ok := o.(*v1alpha1.AINode); ok && record.Spec.ClusterConfigName == "prod" {
					return apierrors.NewInvalid(schema.GroupKind{Group: contract.Group, Kind: "AINode"}, "ai-1", nil) // as the CRD's rule
				}
				return c.Update(ctx, o, options...)
			}})
			x.other(t, c.is)
			if !c.node {
				require.NoError(t, x.target.CoreV1().Nodes().Delete(t.Context(), "ai-1", metav1.DeleteOptions{}))
			}
			_, err := x.binding(t)
			require.Error(t, err)
			require.Equal(t, c.listed, x.listed(t, "prod"))
			l, err := x.CheckLeaving(t.Context(), "ai-1", UnbindOptions{})
			require.NoError(t, err)
			require.Equal(t, name == "nothing is left", l.Done, "unbind has something to do, as bind says")
		})
	}
}

// A binding that is taken back stays listed until its machine says that it has nothing of
// it: a credential that it took over at the last moment may have made a node.
func TestABindingThatIsTakenBackStaysListedUntilTheMachineAnswers(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]bool{"answers": true, "is silent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTwo(t, interceptor.Funcs{})
			x.unheld(t)
			x.target.PrependReactor("delete", "clusterroles", func(k8stesting.Action) (bool, runtime.Object, error) {
				if answers {
					x.other(t, released)
				}
				return false, nil, nil
			})
			_, err := x.binding(t)
			require.ErrorContains(t, err, "all Secrets may be read")
			require.Equal(t, !answers, x.listed(t, "prod"))
			if !answers {
				require.ErrorContains(t, err, `so it stays listed under "prod"`)
				require.Equal(t, "Take back the rest:  kubectl ainode unbind ai-1", way(err))
			}
		})
	}
}

// unheld makes the target one that does not hold identities down, with nothing of ai-1.
func (x *two) unheld(t *testing.T) {
	t.Helper()
	x.other(t, released)
	require.NoError(t, x.target.CoreV1().Nodes().Delete(t.Context(), "ai-1", metav1.DeleteOptions{}))
	x.target.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		return a.GetSubresource() == "token", &authenticationv1.TokenRequest{}, nil
	})
	x.Target.As = func(string, string, string) (kubernetes.Interface, error) {
		as := fake.NewClientset()
		as.PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		})
		return as, nil
	}
}

// Who binds while another takes their own failed binding back stays listed: a config is
// not deleted from under a bound node.
func TestTakingBackLeavesAnothersBindingListed(t *testing.T) {
	t.Parallel()
	x := newTwo(t, interceptor.Funcs{})
	x.unheld(t)
	x.target.PrependReactor("delete", "clusterroles", func(k8stesting.Action) (bool, runtime.Object, error) {
		x.other(t, func(r *v1alpha1.AINode) {
			released(r)
			r.Spec.ClusterConfigName, r.Spec.BindEpoch, r.Spec.SinceEpoch = "prod", 6, 6
		})
		return false, nil, nil
	})
	_, err := x.binding(t)
	require.ErrorContains(t, err, "all Secrets may be read")
	require.EqualValues(t, 6, x.record(t).Spec.BindEpoch)
	require.True(t, x.listed(t, "prod"))
}
