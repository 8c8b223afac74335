package bootstrap

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/ainode/ainode/api/contract"
)

// object is what every kind of the API has.
type object interface {
	runtime.Object
	metav1.Object
}

// client is the part of a typed client that ensure needs.
type client[T object] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// dryRun is what the API servers are told of writes: nil keeps them,
// metav1.DryRunAll has them checked and not kept.
type dryRun []string

// ensure makes want as it should be, if it is not there, or lets adopt bring the
// one that is there in line. An object of that name that is not the node's is left
// alone.
func ensure[T object](ctx context.Context, dry dryRun, kind, node string, c client[T], want T, adopt func(have, want T)) error {
	_, err := c.Create(ctx, want, metav1.CreateOptions{DryRun: dry})
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s %q: %w", kind, want.GetName(), err)
	}
	have, err := c.Get(ctx, want.GetName(), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read %s %q: %w", kind, want.GetName(), err)
	}
	if have.GetLabels()[contract.NodeNameLabel] != node {
		return fmt.Errorf("there is a %s %q already that is not of AI node %q: choose another name for the node", kind, want.GetName(), node)
	}
	before := have.DeepCopyObject()
	have.SetOwnerReferences(want.GetOwnerReferences())
	if adopt != nil {
		adopt(have, want)
	}
	if equality.Semantic.DeepEqual(before, have) {
		return nil
	}
	if _, err := c.Update(ctx, have, metav1.UpdateOptions{DryRun: dry}); err != nil {
		return fmt.Errorf("update %s %q: %w", kind, want.GetName(), err)
	}
	return nil
}

// remover is the part of a typed client that remove needs.
type remover interface {
	Delete(context.Context, string, metav1.DeleteOptions) error
}

// thing is one object to be deleted.
type thing struct {
	kind, name string
	client     remover
}

// remove deletes in order what is there.
func remove(ctx context.Context, dry dryRun, things ...thing) error {
	for _, t := range things {
		if err := t.client.Delete(ctx, t.name, metav1.DeleteOptions{DryRun: dry}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %q: %w", t.kind, t.name, err)
		}
	}
	return nil
}

func (a account) ensure(ctx context.Context, dry dryRun, core kubernetes.Interface, node string) error {
	ns := contract.SystemNamespace
	if err := ensure(ctx, dry, "ServiceAccount", node, core.CoreV1().ServiceAccounts(ns), a.serviceAccount, nil); err != nil {
		return err
	}
	if err := ensure(ctx, dry, "Role", node, core.RbacV1().Roles(ns), a.role, adoptRole); err != nil {
		return err
	}
	if err := ensure(ctx, dry, "RoleBinding", node, core.RbacV1().RoleBindings(ns), a.binding, adoptBinding); err != nil {
		return err
	}
	if a.clusterRole == nil {
		return nil
	}
	if err := ensure(ctx, dry, "ClusterRole", node, core.RbacV1().ClusterRoles(), a.clusterRole, adoptClusterRole); err != nil {
		return err
	}
	return ensure(ctx, dry, "ClusterRoleBinding", node, core.RbacV1().ClusterRoleBindings(), a.clusterBinding, adoptClusterBinding)
}
