// Package binding walks AI nodes into and out of a binding. Every step looks before
// it acts, so that a walk that broke off is gone on with by typing it again.
package binding

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/plugin/internal/preflight"
)

// targetIdentity is what stands for one epoch of a node on the target. All of it is
// owned by the ClusterRole and so goes with it.
type targetIdentity struct {
	clusterRole    *rbacv1.ClusterRole
	clusterBinding *rbacv1.ClusterRoleBinding
	serviceAccount *corev1.ServiceAccount
	role           *rbacv1.Role
	roleBinding    *rbacv1.RoleBinding
}

// newTargetIdentity makes the identity: it may act as the node, and renew its own
// token, nothing else. address is what serving certificates are approved for.
func newTargetIdentity(node string, epoch int64, address string) targetIdentity {
	name := identity.Target(node, epoch)
	meta := metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{contract.NodeNameLabel: node},
		Annotations: map[string]string{
			contract.BindEpochAnnotation: strconv.FormatInt(epoch, 10), contract.AddressAnnotation: address,
		},
	}
	inside := *meta.DeepCopy()
	inside.Namespace = contract.SystemNamespace
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: contract.SystemNamespace}}
	return targetIdentity{
		clusterRole: &rbacv1.ClusterRole{ObjectMeta: *meta.DeepCopy(), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{identity.NodeUser(node)}, Verbs: []string{"impersonate"}},
			{APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{identity.NodesGroup}, Verbs: []string{"impersonate"}},
		}},
		clusterBinding: &rbacv1.ClusterRoleBinding{
			ObjectMeta: *meta.DeepCopy(),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   subjects,
		},
		serviceAccount: &corev1.ServiceAccount{ObjectMeta: *inside.DeepCopy()},
		role: &rbacv1.Role{ObjectMeta: *inside.DeepCopy(), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{name}, Verbs: []string{"create"}},
		}},
		roleBinding: &rbacv1.RoleBinding{
			ObjectMeta: *inside.DeepCopy(),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   subjects,
		},
	}
}

// own makes everything go with the ClusterRole, once it has a UID.
func (t targetIdentity) own(role *rbacv1.ClusterRole) {
	owner := []metav1.OwnerReference{{
		APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole", Name: role.Name, UID: role.UID,
	}}
	for _, o := range []metav1.Object{t.clusterBinding, t.serviceAccount, t.role, t.roleBinding} {
		o.SetOwnerReferences(owner)
	}
}

// BindRights are what binding node under config needs; withRange says that its pods
// get addresses of their own, which must be nobody else's.
func BindRights(node, config string, withRange bool) (hub, target []preflight.Right) {
	ns, rbac := contract.SystemNamespace, rbacv1.GroupName
	hub = append(hubRights(node, config),
		preflight.Right{Verb: "patch", Resource: "secrets", Namespace: ns, Name: identity.HandoverSecret(node)},
	)
	target = []preflight.Right{
		{Verb: "get", Resource: "namespaces", Name: metav1.NamespaceSystem},
		{Verb: "get", Resource: "nodes", Name: node},
		{Verb: "watch", Resource: "nodes", Name: node},
		{Verb: "patch", Resource: "nodes", Name: node},
		{Verb: "get", Resource: "nodes", Subresource: "proxy", Name: node},
		{Verb: "get", Resource: "configmaps", Namespace: metav1.NamespaceSystem, Name: clientCAConfigMap},
		{Verb: "create", Group: rbac, Resource: "clusterroles"},
		{Verb: "update", Group: rbac, Resource: "clusterroles"},
		{Verb: "create", Group: rbac, Resource: "clusterrolebindings"},
		{Verb: "create", Group: rbac, Resource: "roles", Namespace: ns},
		{Verb: "create", Group: rbac, Resource: "rolebindings", Namespace: ns},
		{Verb: "create", Resource: "serviceaccounts", Namespace: ns},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: ns},
		// Only who holds these may give them away.
		{Verb: "impersonate", Resource: "users", Name: identity.NodeUser(node)},
		{Verb: "impersonate", Resource: "groups", Name: identity.NodesGroup},
	}
	if withRange {
		hub = append(hub, preflight.Right{Verb: "list", Group: contract.Group, Resource: "ainodes"})
		target = append(target, preflight.Right{Verb: "list", Resource: "nodes"}, preflight.Right{Verb: "list", Resource: "pods"})
	}
	// What fails half-way is taken back.
	return hub, append(target, identityRemovalRights()...)
}

// UnbindRights are what unbinding node from config needs. Where the config is not
// known, for want of a right to read it, it is empty.
func UnbindRights(node, config string) (hub, target []preflight.Right) {
	target = []preflight.Right{
		{Verb: "get", Resource: "namespaces", Name: metav1.NamespaceSystem},
		{Verb: "get", Resource: "nodes", Name: node},
		{Verb: "patch", Resource: "nodes", Name: node},
		{Verb: "delete", Resource: "nodes", Name: node},
		{Verb: "list", Resource: "pods"},
		{Verb: "delete", Resource: "pods"},
		{Verb: "create", Resource: "pods", Subresource: "eviction"},
		{Verb: "get", Group: "apps", Resource: "daemonsets"}, // whose pods are not waited for
		{Verb: "delete", Group: "coordination.k8s.io", Resource: "leases", Namespace: corev1.NamespaceNodeLease, Name: node},
		{Verb: "list", Group: "certificates.k8s.io", Resource: "certificatesigningrequests"},
		{Verb: "delete", Group: "certificates.k8s.io", Resource: "certificatesigningrequests"},
	}
	return hubRights(node, config), append(target, identityRemovalRights()...)
}

// ForceRights are what a forced unbinding needs besides: it speaks for the machine.
func ForceRights(node string) []preflight.Right {
	return []preflight.Right{{Verb: "update", Group: contract.Group, Resource: "ainodes", Subresource: "status", Name: node}}
}

func identityRemovalRights() []preflight.Right {
	ns, rbac := contract.SystemNamespace, rbacv1.GroupName
	return []preflight.Right{
		{Verb: "list", Group: rbac, Resource: "clusterroles"},
		{Verb: "delete", Group: rbac, Resource: "clusterroles"},
		{Verb: "delete", Group: rbac, Resource: "clusterrolebindings"},
		{Verb: "delete", Group: rbac, Resource: "roles", Namespace: ns},
		{Verb: "delete", Group: rbac, Resource: "rolebindings", Namespace: ns},
		{Verb: "delete", Resource: "serviceaccounts", Namespace: ns},
	}
}

func hubRights(node, config string) []preflight.Right {
	return []preflight.Right{
		{Verb: "get", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "watch", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "update", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "list", Group: contract.Group, Resource: "clusterconfigs"},
		{Verb: "get", Group: contract.Group, Resource: "clusterconfigs", Name: config},
		{Verb: "update", Group: contract.Group, Resource: "clusterconfigs", Subresource: "status", Name: config},
		{Verb: "get", Group: "coordination.k8s.io", Resource: "leases", Namespace: contract.SystemNamespace, Name: identity.HubLease(node)},
	}
}
