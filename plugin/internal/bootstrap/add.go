package bootstrap

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/handover"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// ValidateName says whether a node may be called name: it becomes a Node, an
// account and the value of a label.
func ValidateName(name string) error {
	if !contract.IsNodeName(name) {
		return fmt.Errorf("%q is no name of an AI node: it begins with %q, for example %s%s", name, contract.NodeNamePrefix, contract.NodeNamePrefix, "h200-01")
	}
	if len(validation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("%q is no name of an AI node: it has lower case letters, digits and dashes alone, %d at most, and ends with none of the dashes",
			name, validation.DNS1123LabelMaxLength)
	}
	return nil
}

// tokenOwner is the policy of a target by which only who may act as a node gets tokens of
// its accounts, an invitation among them.
const tokenOwner = "ainode-token-owner"

// AddRights are what Add needs on hub, which may be a target too.
func AddRights(ctx context.Context, hub *kube.Cluster, node string) []preflight.Right {
	ns, rbac := contract.SystemNamespace, rbacv1.GroupName
	rights := []preflight.Right{
		{Verb: "create", Group: contract.Group, Resource: "ainodes"},
		{Verb: "get", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "create", Resource: "secrets", Namespace: ns},
		{Verb: "delete", Resource: "secrets", Namespace: ns, Name: identity.Joiner(node)},
		{Verb: "create", Group: "coordination.k8s.io", Resource: "leases", Namespace: ns},
		{Verb: "create", Resource: "serviceaccounts", Namespace: ns},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: ns, Name: identity.Joiner(node)},
		{Verb: "create", Group: rbac, Resource: "roles", Namespace: ns},
		{Verb: "create", Group: rbac, Resource: "rolebindings", Namespace: ns},
		{Verb: "create", Group: rbac, Resource: "clusterroles"},
		{Verb: "create", Group: rbac, Resource: "clusterrolebindings"},
	}
	// Who may not look is not held up: the policy itself says what is missing.
	if _, err := hub.Core.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, tokenOwner, metav1.GetOptions{}); err == nil {
		rights = append(rights, preflight.Right{Verb: "impersonate", Resource: "users", Name: identity.NodeUser(node)})
	}
	return rights
}

// Added is what Add has made.
type Added struct {
	// New is false if the record was there before.
	New bool
	// Record is the node's record.
	Record *v1alpha1.AINode
	// Join is the invitation; every earlier one of this node is void.
	Join handover.Join
}

// Add makes the record of node, the account of its agent, and an invitation that
// lives for ttl. Called again it makes a new invitation and mends the rest. With
// metav1.DryRunAll for dry nothing is kept, and nobody is invited.
func Add(ctx context.Context, hub *kube.Cluster, node string, at kube.Address, ttl time.Duration, dry ...string) (Added, error) {
	added := Added{}
	stands, err := ensureNamespace(ctx, hub, dry)
	if err != nil {
		return added, err
	}
	record := &v1alpha1.AINode{ObjectMeta: metav1.ObjectMeta{Name: node}}
	err = kube.Explain(hub.Records.Create(ctx, record, &ctrlclient.CreateOptions{DryRun: dry}))
	switch {
	case err == nil:
		added.New = true
	case apierrors.IsAlreadyExists(err):
		if record, err = hub.AINode(ctx, node); err != nil {
			return added, fmt.Errorf("read AI node %q: %w", node, err)
		}
	default:
		return added, fmt.Errorf("create AI node %q: %w", node, err)
	}
	added.Record = record
	if !stands {
		return added, nil // in a namespace that was made for show nothing can be tried
	}
	owner := ownedBy(record)
	if err := hubAccount(node, owner).ensure(ctx, dry, hub.Core, node); err != nil {
		return added, err
	}
	secrets := hub.Core.CoreV1().Secrets(contract.SystemNamespace)
	if err := ensure(ctx, dry, "Secret", node, secrets, handoverSecret(node, owner), nil); err != nil {
		return added, err
	}
	if err := ensure(ctx, dry, "Lease", node, hub.Core.CoordinationV1().Leases(contract.SystemNamespace), lease(node, owner), nil); err != nil {
		return added, err
	}
	if len(dry) > 0 {
		return added, nil // an invitation is of what is there
	}
	token, expires, err := invite(ctx, hub, node, owner, ttl)
	if err != nil {
		return added, err
	}
	added.Join = handover.Join{
		Node: node, Server: at.Server, CertificateAuthorityData: at.CAData, Token: token, Expires: expires,
	}
	return added, nil
}

// invite makes a token that is good for one joining. It is bound to a Secret that
// joining deletes; making that Secret anew voids the invitations before.
func invite(ctx context.Context, hub *kube.Cluster, node string, owner metav1.OwnerReference, ttl time.Duration) (string, time.Time, error) {
	name := identity.Joiner(node)
	var never time.Time
	if err := joinerAccount(node, owner).ensure(ctx, nil, hub.Core, node); err != nil {
		return "", never, err
	}
	secrets := hub.Core.CoreV1().Secrets(contract.SystemNamespace)
	if err := remove(ctx, nil, thing{"Secret", name, secrets}); err != nil {
		return "", never, err
	}
	secret, err := secrets.Create(ctx, joinerSecret(node, owner), metav1.CreateOptions{})
	if err != nil {
		return "", never, fmt.Errorf("create Secret %q: %w", name, err)
	}
	request, err := hub.Core.CoreV1().ServiceAccounts(contract.SystemNamespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: ptr.To(int64(ttl / time.Second)),
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", never, fmt.Errorf("request a token for joining: %w", err)
	}
	return request.Status.Token, request.Status.ExpirationTimestamp.Time, nil
}

// ensureNamespace reports whether the namespace stands afterwards, which it does not
// if it was made for show.
func ensureNamespace(ctx context.Context, hub *kube.Cluster, dry dryRun) (stands bool, err error) {
	namespaces := hub.Core.CoreV1().Namespaces()
	if _, err := namespaces.Get(ctx, contract.SystemNamespace, metav1.GetOptions{}); err == nil {
		return true, nil
	}
	_, err = namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: contract.SystemNamespace}}, metav1.CreateOptions{DryRun: dry})
	if apierrors.IsAlreadyExists(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("create namespace %q: %w", contract.SystemNamespace, err)
	}
	return len(dry) == 0, nil
}

func adoptRole(have, want *rbacv1.Role)               { have.Rules = want.Rules }
func adoptClusterRole(have, want *rbacv1.ClusterRole) { have.Rules = want.Rules }
func adoptBinding(have, want *rbacv1.RoleBinding)     { have.Subjects = want.Subjects }
func adoptClusterBinding(have, want *rbacv1.ClusterRoleBinding) {
	have.Subjects = want.Subjects
}
