package bootstrap

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Removable fails while node is bound, or not given back entirely. The record is
// nil if there is none.
func Removable(ctx context.Context, hub *kube.Cluster, node string) (*v1alpha1.AINode, error) {
	configs, err := hub.ClusterConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list configs: %w", err)
	}
	record, err := hub.AINode(ctx, node)
	if apierrors.IsNotFound(err) {
		record, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read AI node %q: %w", node, err)
	}
	bound := ""
	for _, c := range configs.Items {
		if slices.Contains(c.Status.BoundNodes, node) {
			bound = c.Name
		}
	}
	if record != nil && record.Spec.ClusterConfigName != "" {
		bound = record.Spec.ClusterConfigName
	}
	switch {
	case bound != "":
		return record, remedy.New("Unbind it first", "kubectl ainode unbind "+node, "AI node %q is bound to %q", node, bound)
	case record != nil && !record.Released():
		return record, remedy.New("Finish the unbinding first", "kubectl ainode unbind "+node,
			"the machine of AI node %q has not given back its last binding yet (%s)", node, record.Status.BindStatus)
	}
	return record, nil
}

// RemoveRights are what Remove needs on the hub.
func RemoveRights(node string) []preflight.Right {
	ns, rbac := contract.SystemNamespace, rbacv1.GroupName
	return []preflight.Right{
		{Verb: "get", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "delete", Group: contract.Group, Resource: "ainodes", Name: node},
		{Verb: "list", Group: contract.Group, Resource: "clusterconfigs"},
		{Verb: "delete", Resource: "secrets", Namespace: ns},
		{Verb: "delete", Resource: "serviceaccounts", Namespace: ns},
		{Verb: "delete", Group: rbac, Resource: "roles", Namespace: ns},
		{Verb: "delete", Group: rbac, Resource: "rolebindings", Namespace: ns},
		{Verb: "delete", Group: rbac, Resource: "clusterroles"},
		{Verb: "delete", Group: rbac, Resource: "clusterrolebindings"},
		{Verb: "delete", Group: "coordination.k8s.io", Resource: "leases", Namespace: ns},
	}
}

// Remove takes away the account first, so that the agent's token is dead at once,
// and the record last, so that a removal that was interrupted is found again. With
// metav1.DryRunAll for dry nothing goes.
func Remove(ctx context.Context, hub *kube.Cluster, record *v1alpha1.AINode, dry ...string) error {
	node, ns := record.Name, contract.SystemNamespace
	core, rbac := hub.Core.CoreV1(), hub.Core.RbacV1()
	role, joiner := identity.HubRole(node), identity.Joiner(node)
	if err := remove(ctx, dry,
		thing{"Secret", joiner, core.Secrets(ns)},
		thing{"ServiceAccount", joiner, core.ServiceAccounts(ns)},
		thing{"ServiceAccount", identity.HubAccount(node), core.ServiceAccounts(ns)},
		thing{"RoleBinding", joiner, rbac.RoleBindings(ns)},
		thing{"Role", joiner, rbac.Roles(ns)},
		thing{"RoleBinding", role, rbac.RoleBindings(ns)},
		thing{"Role", role, rbac.Roles(ns)},
		thing{"ClusterRoleBinding", role, rbac.ClusterRoleBindings()},
		thing{"ClusterRole", role, rbac.ClusterRoles()},
		thing{"Secret", identity.HandoverSecret(node), core.Secrets(ns)},
		thing{"Lease", identity.HubLease(node), hub.Core.CoordinationV1().Leases(ns)},
	); err != nil {
		return err
	}
	if err := hub.Records.Delete(ctx, record, &ctrlclient.DeleteOptions{DryRun: dry}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete AI node %q: %w", node, err)
	}
	return nil
}
