package binding

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// outOfService cordons a Node whose machine is gone, and taints it so that
// Kubernetes' own controllers know it too: volumes of its pods are detached at once,
// which after a deletion by force alone they wait six minutes for, and what is still
// terminating there is collected (KEP-2268, non-graceful node shutdown).
func (w *Walk) outOfService(ctx context.Context, name string) error {
	if err := w.cordon(ctx, name, true); err != nil {
		return err
	}
	nodes := w.Target.Core.CoreV1().Nodes()
	taint := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil || slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
			return err
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
			"spec":     map[string]any{"taints": append(node.Spec.Taints, taint)},
		})
		if err != nil {
			return fmt.Errorf("encode a patch: %w", err)
		}
		_, err = nodes.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("taint node %q as out of service: %w", name, err)
	}
	return nil
}
