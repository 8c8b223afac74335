package approver

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	crfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

var asked = time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)

// bound is what bind makes of one epoch of ai-a.
func bound(epoch int64, address string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{
		Name: identity.Target("ai-a", epoch), Labels: map[string]string{contract.NodeNameLabel: "ai-a"},
		Annotations: map[string]string{contract.BindEpochAnnotation: strconv.FormatInt(epoch, 10), contract.AddressAnnotation: address},
	}}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	const here = "10.0.0.5" // what good() asks for
	type csr = certificatesv1.CertificateSigningRequest
	strange := bound(9, here)
	strange.Name = "somebody-elses"
	going := bound(9, here)
	going.DeletionTimestamp, going.Finalizers = ptr.To(metav1.NewTime(asked)), []string{"foregroundDeletion"}
	condition := func(kind certificatesv1.RequestConditionType) func(*csr) {
		return func(c *csr) {
			c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: "True"}}
		}
	}
	const silent = "" // neither approved nor spoken of
	for name, c := range map[string]struct {
		bindings []*rbacv1.ClusterRole
		change   func(*csr)
		age      time.Duration
		want     string // "approved", silent, or what the event says
		again    time.Duration
	}{
		"bound":                                  {bindings: []*rbacv1.ClusterRole{bound(3, here)}, want: "approved"},
		"an earlier account, just being removed": {bindings: []*rbacv1.ClusterRole{bound(4, here), bound(3, here)}, age: grace / 2, want: silent, again: retry},
		"an earlier account that stays": {bindings: []*rbacv1.ClusterRole{bound(3, here), bound(10, here), bound(4, here)}, age: 2 * grace,
			want: "kubectl ainode renew ai-a", again: grace},
		"an earlier account that is going":   {bindings: []*rbacv1.ClusterRole{bound(10, here), going}, want: "approved"},
		"another's address":                  {bindings: []*rbacv1.ClusterRole{bound(3, "10.0.0.6")}, want: "10.0.0.5 is not 10.0.0.6"},
		"unbound, perhaps just being bound":  {age: grace / 2, want: silent, again: retry},
		"unbound":                            {age: 2 * grace, want: `node "ai-a" is not bound here`, again: grace},
		"unbound for long":                   {age: 2 * patience, want: `node "ai-a" is not bound here`},
		"bound by a role that is not bind's": {bindings: []*rbacv1.ClusterRole{strange}, age: 2 * patience, want: "is not bound here"},
		"being unbound":                      {bindings: []*rbacv1.ClusterRole{going}, age: 2 * patience, want: "is not bound here"},
		"bound, its address not known":       {bindings: []*rbacv1.ClusterRole{bound(3, "")}, age: 2 * patience, want: "is not bound here"},
		"another node asks in its name": {bindings: []*rbacv1.ClusterRole{bound(3, here)},
			change: func(c *csr) { c.Spec.Username = identity.NodeUser("node-1") }, want: silent},
		"another AI node asks in its name": {bindings: []*rbacv1.ClusterRole{bound(3, here)}, age: 2 * patience,
			change: func(c *csr) { c.Spec.Username = identity.NodeUser("ai-b") }, want: `node "ai-b" is not bound here`},
		"a person asks in its name": {bindings: []*rbacv1.ClusterRole{bound(3, here)}, change: func(c *csr) { c.Spec.Username = "kim" }, want: silent},
		"the account, not acting as the node": {bindings: []*rbacv1.ClusterRole{bound(3, here)},
			change: func(c *csr) { c.Spec.Username = "system:serviceaccount:ainode-system:ainode-ai-a-3" }, want: silent},
		"a client certificate": {bindings: []*rbacv1.ClusterRole{bound(3, here)}, change: func(c *csr) {
			c.Spec.SignerName = certificatesv1.KubeAPIServerClientKubeletSignerName
			c.Spec.Usages = []certificatesv1.KeyUsage{"digital signature", "client auth"}
		}, want: silent},
		"denied by a person":   {bindings: []*rbacv1.ClusterRole{bound(3, here)}, change: condition(certificatesv1.CertificateDenied), want: silent},
		"failed at the signer": {bindings: []*rbacv1.ClusterRole{bound(3, here)}, change: condition(certificatesv1.CertificateFailed), want: silent},
		"signed":               {bindings: []*rbacv1.ClusterRole{bound(3, here)}, change: func(c *csr) { c.Status.Certificate = []byte("pem") }, want: silent},
		"groups that lie": {bindings: []*rbacv1.ClusterRole{bound(3, here)},
			change: func(c *csr) { c.Spec.Groups = []string{"system:authenticated"} }, want: "not in group system:nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := &csr{
				ObjectMeta: metav1.ObjectMeta{Name: "csr-1", CreationTimestamp: metav1.NewTime(asked)},
				Spec: certificatesv1.CertificateSigningRequestSpec{
					SignerName: certificatesv1.KubeletServingSignerName, Username: identity.NodeUser("ai-a"), Groups: []string{"system:nodes", "system:authenticated"},
					Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"}, Request: request(t, good()), ExpirationSeconds: ptr.To[int32](30 * 86400),
				},
			}
			if c.change != nil {
				c.change(request)
			}
			objects := []runtime.Object{request}
			for _, b := range c.bindings {
				objects = append(objects, b)
			}
			client, recorder := fake.NewClientset(objects...), events.NewFakeRecorder(10)
			a, err := New(Options{
				Reader: crfake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(request.DeepCopy()).Build(),
				Client: client, Recorder: recorder, Clock: testclock.NewFakePassiveClock(asked.Add(c.age)),
			})
			require.NoError(t, err)
			result, err := a.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "csr-1"}})
			require.NoError(t, err)
			require.Equal(t, c.again, result.RequeueAfter)
			after, err := client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "csr-1", metav1.GetOptions{})
			require.NoError(t, err)
			if c.want == "approved" {
				require.Len(t, after.Status.Conditions, 1)
				require.Equal(t, certificatesv1.CertificateApproved, after.Status.Conditions[0].Type)
				require.Empty(t, recorder.Events)
				return
			}
			require.Equal(t, request.Status, after.Status, "it is left as it was")
			if c.want == silent {
				require.Empty(t, recorder.Events)
				return
			}
			require.Contains(t, <-recorder.Events, c.want)
		})
	}
}

// A request that somebody else has decided on meanwhile is looked at again, and one
// that is gone is no error.
func TestReconcileOfWhatChangesMeanwhile(t *testing.T) {
	t.Parallel()
	request := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "csr-1", CreationTimestamp: metav1.NewTime(asked)},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeletServingSignerName, Username: identity.NodeUser("ai-a"), Groups: []string{"system:nodes", "system:authenticated"},
			Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"}, Request: request(t, good()), ExpirationSeconds: ptr.To[int32](86400),
		},
	}
	client, recorder := fake.NewClientset(request, bound(3, "10.0.0.5")), events.NewFakeRecorder(10)
	client.PrependReactor("update", "certificatesigningrequests", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "certificatesigningrequests"}, "csr-1", nil)
	})
	a, err := New(Options{
		Reader: crfake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(request.DeepCopy()).Build(),
		Client: client, Recorder: recorder, Clock: testclock.NewFakePassiveClock(asked),
	})
	require.NoError(t, err)
	result, err := a.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "csr-1"}})
	require.NoError(t, err)
	require.Positive(t, result.RequeueAfter)
	result, err = a.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "gone"}})
	require.NoError(t, err)
	require.Zero(t, result)
	require.Empty(t, recorder.Events)
}
