package bootstrap

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// Where the hub is a target too, its policy asks of who invites a node what it asks of who
// binds it: that is known before anything is made.
func TestAddRightsWhereTheHubIsATarget(t *testing.T) {
	t.Parallel()
	be := preflight.Right{Verb: "impersonate", Resource: "users", Name: "system:node:ai-1"}
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: tokenOwner}}
	both := fake.NewClientset(policy)
	require.Contains(t, AddRights(t.Context(), &kube.Cluster{Core: both}, "ai-1"), be)
	require.NotContains(t, AddRights(t.Context(), &kube.Cluster{Core: fake.NewClientset()}, "ai-1"), be, "nothing asks for it there")
	both.PrependReactor("get", "validatingadmissionpolicies", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "validatingadmissionpolicies"}, tokenOwner, errors.New("no"))
	})
	require.NotContains(t, AddRights(t.Context(), &kube.Cluster{Core: both}, "ai-1"), be, "who may not look is not held up")

	for file, text := range map[string]string{
		"policies-tokens.yaml": "kind: ValidatingAdmissionPolicy\nmetadata:\n  name: " + tokenOwner + "\n",
		"roles.yaml":           "  resources: [validatingadmissionpolicies]\n  resourceNames: [" + tokenOwner + "]\n  verbs: [get]\n",
	} {
		chart, err := os.ReadFile("../../../charts/ainode/templates/" + file)
		require.NoError(t, err)
		require.Contains(t, string(chart), text, file)
	}
}
