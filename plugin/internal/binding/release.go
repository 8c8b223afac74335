package binding

import (
	"context"
	"fmt"
	"strconv"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
)

// cleanUp removes what stands for a node on the target, once its machine has let
// go, and last of all the config's listing of it.
func (w *Walk) cleanUp(ctx context.Context, l *Leaving) error {
	if l.config != nil {
		// The identity first: whatever held its token is out from here on.
		if err := w.removeIdentities(ctx, l.Node, l.epoch); err != nil {
			return err
		}
		if err := w.removeNode(ctx, l.Node, l.epoch); err != nil {
			return err
		}
		if err := w.removePods(ctx, l.Node); err != nil {
			return err
		}
		if err := w.removeRequests(ctx, l.Node); err != nil {
			return err
		}
	}
	if l.Config == "" {
		return nil
	}
	_, err := w.list(ctx, l.Config, l.Node, false)
	return err
}

// removeIdentities removes the identities of every epoch up to newest; an earlier
// one may be left of a walk that broke off.
func (w *Walk) removeIdentities(ctx context.Context, node string, newest int64) error {
	core, rbac, ns := w.Target.Core.CoreV1(), w.Target.Core.RbacV1(), contract.SystemNamespace
	roles, err := rbac.ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: contract.NodeNameLabel + "=" + node})
	if err != nil {
		return fmt.Errorf("list the identities of %q on the target: %w", node, err)
	}
	for _, role := range roles.Items {
		// On a hub that is the target as well, the agent's own account has the label too.
		epoch, err := strconv.ParseInt(role.Annotations[contract.BindEpochAnnotation], 10, 64)
		if err != nil || epoch > newest || role.Name != identity.Target(node, epoch) {
			continue
		}
		// Garbage collection would do; by name it is done before the command ends, and
		// the account's death comes first.
		for _, gone := range []struct {
			kind string
			err  error
		}{
			{"ServiceAccount", core.ServiceAccounts(ns).Delete(ctx, role.Name, metav1.DeleteOptions{})},
			{"ClusterRoleBinding", rbac.ClusterRoleBindings().Delete(ctx, role.Name, metav1.DeleteOptions{})},
			{"RoleBinding", rbac.RoleBindings(ns).Delete(ctx, role.Name, metav1.DeleteOptions{})},
			{"Role", rbac.Roles(ns).Delete(ctx, role.Name, metav1.DeleteOptions{})},
			{"ClusterRole", rbac.ClusterRoles().Delete(ctx, role.Name, metav1.DeleteOptions{})},
		} {
			if gone.err != nil && !apierrors.IsNotFound(gone.err) {
				return fmt.Errorf("delete %s %q on the target: %w", gone.kind, role.Name, gone.err)
			}
		}
	}
	return nil
}

// removeNode removes the Node and its heartbeat, if it is ours.
func (w *Walk) removeNode(ctx context.Context, name string, newest int64) error {
	node, err := w.Target.Core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return w.removeHeartbeat(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("read node %q: %w", name, err)
	}
	if _, our := ours(node, newest); !our {
		w.Progress.Warn(name, "the target has a node of that name that is not of this binding; it is left alone")
		return nil
	}
	err = w.Target.Core.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(node.UID)}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %q: %w", name, err)
	}
	return w.removeHeartbeat(ctx, name)
}

func (w *Walk) removeHeartbeat(ctx context.Context, name string) error {
	err := w.Target.Core.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the lease of node %q: %w", name, err)
	}
	return nil
}

// removePods deletes the records of pods whose processes are gone with the machine's
// release: DaemonSet pods, which never ran, and what came after the drain.
func (w *Walk) removePods(ctx context.Context, node string) error {
	pods, err := w.Target.Core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return fmt.Errorf("list the pods of node %q: %w", node, err)
	}
	for _, pod := range pods.Items {
		err := w.Target.Core.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: ptr.To(pod.UID)},
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// removeRequests deletes the node's certificate requests.
func (w *Walk) removeRequests(ctx context.Context, node string) error {
	requests, err := w.Target.Core.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String(),
	})
	if err != nil {
		return fmt.Errorf("list certificate requests: %w", err)
	}
	for _, r := range requests.Items {
		if r.Spec.Username != identity.NodeUser(node) || r.Spec.SignerName != certificatesv1.KubeletServingSignerName {
			continue
		}
		err := w.Target.Core.CertificatesV1().CertificateSigningRequests().Delete(ctx, r.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete certificate request %q: %w", r.Name, err)
		}
	}
	return nil
}
