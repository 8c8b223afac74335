package csinode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/ainode/ainode/nodeagent/internal/csi"
)

const (
	// nodeIDs holds the node's id of each driver, by driver, as JSON.
	nodeIDs = "csi.volume.kubernetes.io/nodeid"
	// managedAttach has the attach-detach controller attach volumes to the node
	// (pkg/volume/util, ControllerManagedAttachAnnotation).
	managedAttach = "volumes.kubernetes.io/controller-managed-attach-detach"
)

// tellNode writes annotations and labels of the Node. A label that says where the
// machine is and is there with another value stays, as on a kubelet, and the driver is
// told nowhere. Labels are never removed.
func (k *Keeper) tellNode(ctx context.Context, node *corev1.Node, registered []csi.Info, gone func(string) bool) error {
	annotations, err := k.annotations(ctx, node, registered, gone)
	if err != nil {
		return err
	}
	labels, err := labels(node, registered)
	// One patch each: what is wrong with a label must not keep an annotation off.
	return errors.Join(err, k.patch(ctx, node, "annotations", annotations), k.patch(ctx, node, "labels", labels))
}

// annotations are those to change; nil removes one. The controller is asked to attach
// volumes when a driver comes that has it do so, and not before: it would try that with
// the volumes too that the agent mounts by itself.
func (k *Keeper) annotations(ctx context.Context, node *corev1.Node, registered []csi.Info, gone func(string) bool) (map[string]*string, error) {
	change, ids := map[string]*string{}, map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			return nil, fmt.Errorf("read annotation %s of node %q: %w", nodeIDs, node.Name, err)
		}
	}
	before := maps.Clone(ids)
	maps.DeleteFunc(ids, func(name, _ string) bool { return gone(name) })
	for _, d := range registered {
		ids[d.Name] = d.NodeID
		if node.Annotations[managedAttach] != "" {
			continue
		}
		object, err := k.Client.StorageV1().CSIDrivers().Get(ctx, d.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read CSIDriver %q: %w", d.Name, err)
		}
		if err != nil || csi.AttachRequired(object) {
			change[managedAttach] = ptr.To("true")
		}
	}
	switch {
	case maps.Equal(before, ids):
	case len(ids) == 0:
		change[nodeIDs] = nil
	default:
		text, err := json.Marshal(ids)
		if err != nil {
			return nil, fmt.Errorf("write annotation %s of node %q: %w", nodeIDs, node.Name, err)
		}
		change[nodeIDs] = ptr.To(string(text))
	}
	return change, nil
}

// labels are those to add.
func labels(node *corev1.Node, registered []csi.Info) (map[string]*string, error) {
	change := map[string]*string{}
	var failed []error
	for _, d := range registered {
		for key, value := range d.Topology {
			have, there := node.Labels[key]
			switch {
			case !there:
				change[key] = ptr.To(value)
			case have != value:
				failed = append(failed, fmt.Errorf("CSI driver %s says that this machine is at %s=%s, but its Node has the label %s=%s", d.Name, key, value, key, have))
			}
		}
	}
	return change, errors.Join(failed...)
}

func (k *Keeper) patch(ctx context.Context, node *corev1.Node, field string, change map[string]*string) error {
	if len(change) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{field: change}})
	if err != nil {
		return fmt.Errorf("change %s of node %q: %w", field, node.Name, err)
	}
	if _, err := k.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("change %s of node %q: %w", field, node.Name, err)
	}
	return nil
}
