package housekeeper

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/remains"
)

// clear removes what is left of a node's bindings up to epoch, and returns how many
// objects that were, and whether the node stands with a newer one.
func (h *Housekeeper) clear(ctx context.Context, node string, epoch int64) (removed int, again bool, err error) {
	seen, err := h.look(ctx, node)
	if err != nil {
		return 0, false, err
	}
	left := remains.Of(node, epoch, seen)
	for _, t := range left.InOrder() {
		err := h.client.Delete(ctx, t.Object, &client.DeleteOptions{
			Preconditions: t.Options.Preconditions, GracePeriodSeconds: t.Options.GracePeriodSeconds,
		})
		switch {
		case err == nil:
			removed++
		case apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone, or not what was seen any more
		default:
			return removed, false, fmt.Errorf("delete %s %q: %w", t.Kind, t.GetName(), err)
		}
	}
	return removed, left.Newer > 0, nil
}

// look reads what there is of a node; its identities last, see remains.Seen.
func (h *Housekeeper) look(ctx context.Context, name string) (remains.Seen, error) {
	var seen remains.Seen
	node := &corev1.Node{}
	err := h.live.Get(ctx, client.ObjectKey{Name: name}, node)
	if client.IgnoreNotFound(err) != nil {
		return seen, fmt.Errorf("read node %q: %w", name, err)
	}
	if err == nil {
		seen.Node = node
	}
	var pods corev1.PodList
	if err := h.live.List(ctx, &pods, client.MatchingFields{"spec.nodeName": name}); err != nil {
		return seen, fmt.Errorf("list the pods of node %q: %w", name, err)
	}
	var requests certificatesv1.CertificateSigningRequestList
	if err := h.client.List(ctx, &requests); err != nil {
		return seen, fmt.Errorf("list certificate requests: %w", err)
	}
	var identities rbacv1.ClusterRoleList
	if err := h.live.List(ctx, &identities, client.MatchingLabels{contract.NodeNameLabel: name}); err != nil {
		return seen, fmt.Errorf("list the identities of node %q: %w", name, err)
	}
	seen.Pods, seen.Requests, seen.Identities = pods.Items, requests.Items, identities.Items
	return seen, nil
}
