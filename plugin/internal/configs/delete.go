package configs

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/preflight"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Unknown is the error for a config that is not there.
func Unknown(ctx context.Context, hub *kube.Cluster, name string) error {
	text := fmt.Sprintf("there is no config %q", name)
	var names []string
	if all, err := hub.ClusterConfigs(ctx); err == nil { // without it, what is known is told
		for i := range all.Items {
			names = append(names, all.Items[i].Name)
		}
	}
	if near := nodes.Similar(name, names); len(near) > 0 {
		text += "; there is " + strings.Join(near, ", ")
	}
	return remedy.New("See all", "kubectl ainode configs", "%s", text)
}

// DeleteRights are what Delete needs on the hub.
func DeleteRights(name string) []preflight.Right {
	return []preflight.Right{
		{Verb: "get", Group: contract.Group, Resource: "clusterconfigs", Name: name},
		{Verb: "delete", Group: contract.Group, Resource: "clusterconfigs", Name: name},
	}
}

// Deletable fails while nodes are bound under the config, as the API server's
// policy does too.
func Deletable(config *v1alpha1.ClusterConfig) error {
	bound := config.Status.BoundNodes
	if len(bound) == 0 {
		return nil
	}
	count, it := "1 bound AI node", "it"
	if len(bound) > 1 {
		count, it = fmt.Sprintf("%d bound AI nodes", len(bound)), "them"
	}
	return remedy.New("Unbind "+it+" first", "kubectl ainode unbind "+strings.Join(bound, " "),
		"config %q still has %s: %s", config.Name, count, strings.Join(bound, ", "))
}

// Delete deletes the config, unless it has changed since it was read: a node may
// be bound under it meanwhile. With metav1.DryRunAll for dry it stays.
func Delete(ctx context.Context, hub *kube.Cluster, config *v1alpha1.ClusterConfig, dry ...string) error {
	err := hub.Records.Delete(ctx, config, client.Preconditions{
		UID: ptr.To(config.UID), ResourceVersion: ptr.To(config.ResourceVersion),
	}, &client.DeleteOptions{DryRun: dry})
	if apierrors.IsConflict(err) {
		return remedy.New("Type it again", "kubectl ainode delete-config "+config.Name, "config %q was changed meanwhile: %w", config.Name, err)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete config %q: %w", config.Name, err)
	}
	return nil
}
