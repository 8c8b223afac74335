package housekeeper

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ainode/ainode/api/v1alpha1"
)

// recorded is the epoch that a node's record says is given back, and the configs of
// this very cluster that still list it; 0 and none of a node that no unbinding of
// this cluster is open of: a node of that name may be another hub's.
func (h *Housekeeper) recorded(ctx context.Context, node string) (epoch int64, lists []string, err error) {
	var record v1alpha1.AINode
	if err := h.client.Get(ctx, client.ObjectKey{Name: node}, &record); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, nil, nil
		}
		return 0, nil, fmt.Errorf("read AI node %q: %w", node, err)
	}
	if !record.Released() {
		return 0, nil, nil
	}
	uid, err := h.clusterUID(ctx)
	if err != nil {
		return 0, nil, err
	}
	var configs v1alpha1.ClusterConfigList
	if err := h.client.List(ctx, &configs); err != nil {
		return 0, nil, fmt.Errorf("list configs: %w", err)
	}
	for _, c := range configs.Items {
		if c.Spec.ClusterUID == uid && slices.Contains(c.Status.BoundNodes, node) {
			lists = append(lists, c.Name)
		}
	}
	if len(lists) == 0 {
		return 0, nil, nil
	}
	return record.Spec.BindEpoch, lists, nil
}

// clusterUID is this cluster's identity: the UID of its kube-system namespace.
func (h *Housekeeper) clusterUID(ctx context.Context) (string, error) {
	if h.uid != "" {
		return h.uid, nil
	}
	var system corev1.Namespace
	if err := h.live.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return "", fmt.Errorf("read namespace %q: %w", metav1.NamespaceSystem, err)
	}
	h.uid = string(system.UID)
	return h.uid, nil
}

// unlist takes a released node out of its config's list, the last step of an
// unbinding. The config is read before the record, and written only if it has not
// changed since. Bind lists a node first and writes the record then: if that came to
// pass in between, the node is put back.
func (h *Housekeeper) unlist(ctx context.Context, config, node string) error {
	var c v1alpha1.ClusterConfig
	if err := h.live.Get(ctx, client.ObjectKey{Name: config}, &c); err != nil {
		return client.IgnoreNotFound(err)
	}
	var record v1alpha1.AINode
	if err := h.live.Get(ctx, client.ObjectKey{Name: node}, &record); err != nil {
		return fmt.Errorf("read AI node %q: %w", node, err)
	}
	at := slices.Index(c.Status.BoundNodes, node)
	if at < 0 || !record.Released() {
		return nil
	}
	c.Status.BoundNodes = slices.Delete(c.Status.BoundNodes, at, at+1)
	if err := h.client.Status().Update(ctx, &c); err != nil {
		return fmt.Errorf("take node %q from the list of config %q: %w", node, config, err)
	}
	log.FromContext(ctx).Info("Taken from the list of its config", "node", node, "config", config)
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var c v1alpha1.ClusterConfig // new ones: what is absent from an answer leaves what was decoded before
		var record v1alpha1.AINode
		if err := h.live.Get(ctx, client.ObjectKey{Name: node}, &record); err != nil || record.Spec.ClusterConfigName != config {
			return client.IgnoreNotFound(err)
		}
		if err := h.live.Get(ctx, client.ObjectKey{Name: config}, &c); err != nil || slices.Contains(c.Status.BoundNodes, node) {
			return client.IgnoreNotFound(err)
		}
		c.Status.BoundNodes = append(c.Status.BoundNodes, node)
		return h.client.Status().Update(ctx, &c)
	})
}
