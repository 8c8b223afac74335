// Package bootstrap makes and takes away what stands for an AI node on the hub: its
// record, the account of its agent, and the invitation that a machine joins with.
package bootstrap

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
)

// account is everything of one account: it may do rules in the system namespace
// and, where clusterRules are given, in the cluster.
type account struct {
	serviceAccount *corev1.ServiceAccount
	role           *rbacv1.Role
	binding        *rbacv1.RoleBinding
	clusterRole    *rbacv1.ClusterRole
	clusterBinding *rbacv1.ClusterRoleBinding
}

// hubAccount is the agent's account: its own record, its own Secret and Lease, its
// own token, and the withdrawal of its own invitation.
func hubAccount(node string, owner metav1.OwnerReference) account {
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{identity.HandoverSecret(node)}, Verbs: []string{"get", "list", "watch", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{identity.Joiner(node)}, Verbs: []string{"delete"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{identity.HubLease(node)}, Verbs: []string{"get", "update"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{identity.HubAccount(node)}, Verbs: []string{"create"}},
	}
	a := newAccount(node, identity.HubAccount(node), identity.HubRole(node), owner, rules)
	a.clusterRole = &rbacv1.ClusterRole{
		ObjectMeta: clusterMeta(node, identity.HubRole(node), owner),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{contract.Group}, Resources: []string{"ainodes"}, ResourceNames: []string{node}, Verbs: []string{"get", "list", "watch"}},
			// At the end of a binding that has one it lets go; a policy of the hub keeps it to that.
			{APIGroups: []string{contract.Group}, Resources: []string{"ainodes"}, ResourceNames: []string{node}, Verbs: []string{"patch"}},
			{APIGroups: []string{contract.Group}, Resources: []string{"ainodes/status"}, ResourceNames: []string{node}, Verbs: []string{"patch"}},
		},
	}
	a.clusterBinding = &rbacv1.ClusterRoleBinding{
		ObjectMeta: clusterMeta(node, identity.HubRole(node), owner),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: identity.HubRole(node)},
		Subjects:   a.binding.Subjects,
	}
	return a
}

// joinerAccount may do one thing: ask for a token of the agent's account.
func joinerAccount(node string, owner metav1.OwnerReference) account {
	return newAccount(node, identity.Joiner(node), identity.Joiner(node), owner, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{identity.HubAccount(node)}, Verbs: []string{"create"}},
	})
}

func newAccount(node, name, role string, owner metav1.OwnerReference, rules []rbacv1.PolicyRule) account {
	return account{
		serviceAccount: &corev1.ServiceAccount{ObjectMeta: meta(node, name, owner)},
		role:           &rbacv1.Role{ObjectMeta: meta(node, role, owner), Rules: rules},
		binding: &rbacv1.RoleBinding{
			ObjectMeta: meta(node, role, owner),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: contract.SystemNamespace}},
		},
	}
}

// handoverSecret is empty until bind puts a sealed credential into it.
func handoverSecret(node string, owner metav1.OwnerReference) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: meta(node, identity.HandoverSecret(node), owner), Type: corev1.SecretTypeOpaque}
}

// joinerSecret holds nothing: the joiner's token lives as long as it does.
func joinerSecret(node string, owner metav1.OwnerReference) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: meta(node, identity.Joiner(node), owner), Type: corev1.SecretTypeOpaque}
}

// lease is made here, so that the agent needs no right to create Leases, which RBAC
// can't narrow down to a name.
func lease(node string, owner metav1.OwnerReference) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: meta(node, identity.HubLease(node), owner)}
}

// ownedBy makes everything go with the record, whoever deletes it.
func ownedBy(record *v1alpha1.AINode) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "AINode", Name: record.Name, UID: record.UID,
	}
}

func meta(node, name string, owner metav1.OwnerReference) metav1.ObjectMeta {
	m := clusterMeta(node, name, owner)
	m.Namespace = contract.SystemNamespace
	return m
}

func clusterMeta(node, name string, owner metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:            name,
		Labels:          map[string]string{contract.NodeNameLabel: node},
		OwnerReferences: []metav1.OwnerReference{owner},
	}
}
