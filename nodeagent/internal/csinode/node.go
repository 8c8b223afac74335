package csinode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

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

// tellNode writes annotations and labels of the Node.
func (k *Keeper) tellNode(ctx context.Context, node *corev1.Node, registered []csi.Info, gone func(string) bool) error {
	annotations, err := k.annotations(ctx, node, registered, gone)
	if err != nil {
		return err
	}
	// One patch each: a label that no node may write must not keep the annotations off.
	return errors.Join(k.patch(ctx, node, "annotations", annotations), k.patch(ctx, node, "labels", labels(node, registered)))
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

// agreeing are the drivers whose labels don't contradict the Node's: where they do, the
// label stays, as on a kubelet, and the driver is told of nowhere.
func agreeing(node *corev1.Node, registered []csi.Info) (agree []csi.Info, err error) {
	var failed []error
	for _, d := range registered {
		fits := true
		for _, key := range slices.Sorted(maps.Keys(d.Topology)) {
			if have, there := node.Labels[key]; there && have != d.Topology[key] {
				fits = false
				failed = append(failed, fmt.Errorf("CSI driver %s says that this machine is at %s=%s, but its Node has the label %s=%s", d.Name, key, d.Topology[key], key, have))
			}
		}
		if fits {
			agree = append(agree, d)
		}
	}
	return agree, errors.Join(failed...)
}

// labels are those to add. None is ever removed, as on a kubelet.
func labels(node *corev1.Node, registered []csi.Info) map[string]*string {
	change := map[string]*string{}
	for _, d := range registered {
		for key, value := range d.Topology {
			if _, there := node.Labels[key]; !there {
				change[key] = ptr.To(value)
			}
		}
	}
	return change
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
