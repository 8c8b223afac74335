package binding

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// The whole might of a machine's identity on the target, word for word.
func TestTargetIdentityMayActAsItsNodeAndNothingElse(t *testing.T) {
	t.Parallel()
	id := newTargetIdentity("ai-1", 7, "10.0.0.5")
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"system:node:ai-1"}, Verbs: []string{"impersonate"}},
		{APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"system:nodes"}, Verbs: []string{"impersonate"}},
	}, id.clusterRole.Rules)
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{"ainode-ai-1-7"}, Verbs: []string{"create"}},
	}, id.role.Rules)

	id.own(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "ainode-ai-1-7", UID: "u"}})
	for _, o := range []metav1.Object{id.clusterBinding, id.serviceAccount, id.role, id.roleBinding} {
		require.Equal(t, "ainode-ai-1-7", o.GetName())
		require.EqualValues(t, "u", o.GetOwnerReferences()[0].UID, "it goes with the ClusterRole")
		require.Equal(t, "7", o.GetAnnotations()["ainode.dev/bind-epoch"])
	}
}

func TestProveTellsWhatIsNotHeldDown(t *testing.T) {
	t.Parallel()
	for allowed, want := range map[string]string{
		"":        "",
		"secrets": "all Secrets may be read",
		"pods":    "another node's pods may be read",
		"nodes":   "another node may be created",
	} {
		t.Run(allowed, func(t *testing.T) {
			t.Parallel()
			as := fake.NewClientset()
			as.PrependReactor("*", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
				create, ok := a.(k8stesting.CreateAction)
				own := ok && create.GetObject().(metav1.Object).GetName() == "ai-1" && len(create.GetObject().(metav1.Object).GetLabels()) == 3
				if a.GetResource().Resource == allowed || own {
					return false, nil, nil
				}
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: a.GetResource().Resource}, "", errors.New("no"))
			})
			err := prove(context.Background(), as, "ai-1")
			if want == "" {
				require.NoError(t, err)
				return
			}
			var unheld *UnheldError
			require.ErrorAs(t, err, &unheld)
			require.ErrorContains(t, err, want)
		})
	}
}
