package binding

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/remains"
)

// cleanUp removes what stands for a node on the target, once its machine has let
// go, and last of all the config's listing of it. The webhook program's housekeeper
// does the same where this is not done for a while.
func (w *Walk) cleanUp(ctx context.Context, l *Leaving) error {
	if l.config != nil {
		left, err := w.remains(ctx, l.Node, l.epoch)
		if err != nil {
			return err
		}
		if left.Foreign || left.Newer > 0 {
			w.Progress.Warn(l.Node, "the target has a node of that name that is not of this binding; it is left alone")
		}
		if err := w.remove(ctx, left.InOrder()); err != nil {
			return err
		}
	}
	if l.Config == "" {
		return nil
	}
	return w.unlist(ctx, l.Config, l.Node)
}

// unlist takes a node that is released out of its config's list. Who binds it again
// at this very moment may have found it listed: then it is put back.
func (w *Walk) unlist(ctx context.Context, config, node string) error {
	changed, err := w.list(ctx, config, node, false)
	if err != nil || !changed {
		return err
	}
	record, err := w.Hub.AINode(ctx, node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read AI node %q: %w", node, err)
	}
	if record.Spec.ClusterConfigName == config {
		_, err = w.list(ctx, config, node, true)
	}
	return err
}

// remains looks at what is left on the target of a node's bindings up to newest.
func (w *Walk) remains(ctx context.Context, node string, newest int64) (remains.Remains, error) {
	core := w.Target.Core
	var seen remains.Seen
	found, err := core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err == nil {
		seen.Node = found
	} else if !apierrors.IsNotFound(err) {
		return remains.Remains{}, fmt.Errorf("read node %q: %w", node, err)
	}
	pods, err := core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return remains.Remains{}, fmt.Errorf("list the pods of node %q: %w", node, err)
	}
	requests, err := core.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String(),
	})
	if err != nil {
		return remains.Remains{}, fmt.Errorf("list certificate requests: %w", err)
	}
	if seen.Identities, err = w.identities(ctx, node); err != nil {
		return remains.Remains{}, err
	}
	seen.Pods, seen.Requests = pods.Items, requests.Items
	return remains.Of(node, newest, seen), nil
}

func (w *Walk) identities(ctx context.Context, node string) ([]rbacv1.ClusterRole, error) {
	roles, err := w.Target.Core.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeNameLabel + "=" + node})
	if err != nil {
		return nil, fmt.Errorf("list the identities of %q on the target: %w", node, err)
	}
	return roles.Items, nil
}

// removeIdentities removes the identities of every epoch up to newest, and reads
// nothing else.
func (w *Walk) removeIdentities(ctx context.Context, node string, newest int64) error {
	roles, err := w.identities(ctx, node)
	if err != nil {
		return err
	}
	return w.remove(ctx, remains.Identities(node, newest, roles))
}

// remove deletes things from the target. What is gone, or is not what was seen any
// more, is done.
func (w *Walk) remove(ctx context.Context, things []remains.Thing) error {
	for _, t := range things {
		err := w.deleter(t)(ctx, t.GetName(), t.Options)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete %s %q on the target: %w", t.Kind, t.GetName(), err)
		}
	}
	return nil
}

func (w *Walk) deleter(t remains.Thing) func(context.Context, string, metav1.DeleteOptions) error {
	core, rbac := w.Target.Core.CoreV1(), w.Target.Core.RbacV1()
	switch t.Object.(type) {
	case *corev1.ServiceAccount:
		return core.ServiceAccounts(t.GetNamespace()).Delete
	case *rbacv1.ClusterRoleBinding:
		return rbac.ClusterRoleBindings().Delete
	case *rbacv1.RoleBinding:
		return rbac.RoleBindings(t.GetNamespace()).Delete
	case *rbacv1.Role:
		return rbac.Roles(t.GetNamespace()).Delete
	case *rbacv1.ClusterRole:
		return rbac.ClusterRoles().Delete
	case *certificatesv1.CertificateSigningRequest:
		return w.Target.Core.CertificatesV1().CertificateSigningRequests().Delete
	case *corev1.Node:
		return core.Nodes().Delete
	case *coordinationv1.Lease:
		return w.Target.Core.CoordinationV1().Leases(t.GetNamespace()).Delete
	case *corev1.Pod:
		return core.Pods(t.GetNamespace()).Delete
	}
	return func(context.Context, string, metav1.DeleteOptions) error {
		return fmt.Errorf("nobody here knows a %T", t.Object)
	}
}
