package binding

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ainode/ainode/api/contract"
	"github.com/ainode/ainode/api/identity"
	"github.com/ainode/ainode/api/v1alpha1"
	"github.com/ainode/ainode/plugin/internal/kube"
	"github.com/ainode/ainode/plugin/internal/nodes"
	"github.com/ainode/ainode/plugin/internal/output"
	"github.com/ainode/ainode/plugin/internal/remedy"
)

// Walk is what bind and unbind have in common. All fields but DryRun are required.
type Walk struct {
	Hub, Target *kube.Cluster
	Progress    *output.Progress
	Clock       clock.Clock
	// Timeout of one node's waiting; 0 waits for ever.
	Timeout time.Duration
	// DryRun has the API servers check every write and keep none.
	DryRun bool
}

func (w *Walk) dryRun() []string {
	if w.DryRun {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// record reads the node's record; who mistyped a name is told the ones that look
// like it.
func (w *Walk) record(ctx context.Context, node string) (*v1alpha1.AINode, error) {
	record, err := w.Hub.AINode(ctx, node)
	if apierrors.IsNotFound(err) {
		return nil, nodes.Unknown(ctx, w.Hub, node)
	}
	if err != nil {
		return nil, fmt.Errorf("read AI node %q: %w", node, err)
	}
	return record, nil
}

// sign reads the agent's sign of life.
func (w *Walk) sign(ctx context.Context, node string) (nodes.Sign, error) {
	lease, err := w.Hub.Core.CoordinationV1().Leases(contract.SystemNamespace).Get(ctx, identity.HubLease(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nodes.SignOf(nil), nil
	}
	if err != nil {
		return nodes.Sign{}, fmt.Errorf("read the lease of AI node %q's agent: %w", node, err)
	}
	return nodes.SignOf(lease), nil
}

// sameCluster fails unless the cluster that answers is the one that was imported.
func (w *Walk) sameCluster(ctx context.Context, config *v1alpha1.ClusterConfig) error {
	uid, err := w.Target.UID(ctx)
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return err
	}
	if err != nil {
		return remedy.New("See which cluster your kubeconfig names", "kubectl config view --minify",
			"the cluster that your kubeconfig names does not answer at %s, so that config %q (%s) can't be compared with it: %w",
			w.Target.Config.Host, config.Name, config.Spec.Server, err)
	}
	if uid != config.Spec.ClusterUID {
		return remedy.New("Name the context of that cluster (and of the hub, if it is another one)",
			"kubectl ainode … --context CONTEXT [--hub-context CONTEXT]",
			"config %q is of another cluster than the one your kubeconfig names: %s was imported with UID %s, %s has %s",
			config.Name, config.Spec.Server, config.Spec.ClusterUID, w.Target.Config.Host, uid)
	}
	return nil
}

// list keeps the config's boundNodes: it adds node, or takes it away. A change
// against a stale copy is refused by the API server and tried again on a fresh one.
func (w *Walk) list(ctx context.Context, config, node string, add bool) (changed bool, err error) {
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		fresh, err := w.Hub.ClusterConfig(ctx, config)
		if err != nil {
			return err
		}
		at := slices.Index(fresh.Status.BoundNodes, node)
		switch {
		case add == (at >= 0):
			changed = false
			return nil
		case add:
			fresh.Status.BoundNodes = append(fresh.Status.BoundNodes, node)
		default:
			fresh.Status.BoundNodes = slices.Delete(fresh.Status.BoundNodes, at, at+1)
		}
		changed = true
		return w.Hub.Records.Status().Update(ctx, fresh, &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: w.dryRun()}})
	})
	if !add && apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write the bound nodes of config %q: %w", config, err)
	}
	return changed, nil
}

// edit changes a record's spec. change returns false if nothing is to be done, or
// an error that ends it.
func (w *Walk) edit(ctx context.Context, node string, change func(*v1alpha1.AINode) (bool, error)) (*v1alpha1.AINode, error) {
	var record *v1alpha1.AINode
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var err error
		if record, err = w.Hub.AINode(ctx, node); err != nil {
			return err
		}
		wanted, err := change(record)
		if err != nil || !wanted {
			return err
		}
		return w.Hub.Records.Update(ctx, record, &client.UpdateOptions{DryRun: w.dryRun()})
	})
	if err != nil {
		return nil, fmt.Errorf("write the record of AI node %q: %w", node, err)
	}
	return record, nil
}

// configsOf are the configs that list node as bound.
func configsOf(configs []v1alpha1.ClusterConfig, node string) []string {
	var names []string
	for _, c := range configs {
		if slices.Contains(c.Status.BoundNodes, node) {
			names = append(names, c.Name)
		}
	}
	return names
}

// patience limits ctx to the walk's timeout.
func (w *Walk) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if w.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, w.Timeout)
}

// IsTarget fails unless the target is the cluster of the named config.
func (w *Walk) IsTarget(ctx context.Context, name string) error {
	config, err := w.Hub.ClusterConfig(ctx, name)
	if err != nil {
		return fmt.Errorf("read config %q: %w", name, err)
	}
	return w.sameCluster(ctx, config)
}
