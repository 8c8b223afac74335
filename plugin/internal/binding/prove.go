package binding

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/ainode/ainode/api/contract"
)

// restrictedLabel is one that NodeRestriction never lets a node give itself.
const restrictedLabel = "node-restriction.kubernetes.io/ainode-proof"

// errUntried is the answer of a trial that had nothing to be tried on.
var errUntried = errors.New("not tried")

// UnheldError says that the target does not hold an identity down as it must.
type UnheldError struct {
	Node, What string
}

func (e *UnheldError) Error() string {
	return fmt.Sprintf("acting as the new identity of AI node %q, %s: the cluster does not run the Node authorizer or NodeRestriction "+
		"(API server flags --authorization-mode=Node,RBAC and --enable-admission-plugins=NodeRestriction, Kubernetes 1.32 or newer); without them a GPU machine could read every Secret", e.Node, e.What)
}

// prove acts as the identity once: what it needs must pass, what it must never do
// must be refused. Nothing is changed: all writes are dry runs.
func prove(ctx context.Context, as kubernetes.Interface, node string) error {
	// Authorizers learn of a new binding a moment after it was written.
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.6, Steps: 12, Cap: 2 * time.Second},
		func(ctx context.Context) (bool, error) {
			last = createNode(ctx, as, node, nil)
			if apierrors.IsForbidden(last) || apierrors.IsUnauthorized(last) {
				return false, nil
			}
			return true, last
		})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Interrupted(err):
		return &UnheldError{node, fmt.Sprintf("it may not even create its own node (%v)", last)}
	case err != nil:
		return fmt.Errorf("create node %q as a trial: %w", node, err)
	}
	return proveRefusals(ctx, as, node)
}

func proveRefusals(ctx context.Context, as kubernetes.Interface, node string) error {
	stranger := node + "-stranger"
	trials := []struct {
		what string
		try  func() error
	}{
		{"another node's pods may be read", func() error {
			_, err := as.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
				Limit: 1, FieldSelector: fields.OneTermEqualSelector("spec.nodeName", stranger).String(),
			})
			return err
		}},
		{"all Secrets may be read", func() error {
			_, err := as.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1})
			return err
		}},
		{"another node may be created", func() error { return createNode(ctx, as, stranger, nil) }},
		{"labels kept for administrators may be set", func() error {
			return createNode(ctx, as, node, map[string]string{restrictedLabel: "true"})
		}},
		{"its taints may be changed", func() error {
			_, err := as.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType,
				[]byte(`{"spec":{"taints":[{"key":"ainode-proof","effect":"NoSchedule"}]}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			if apierrors.IsNotFound(err) {
				return errUntried // there is no node yet; the trial of the labels has asked the same judge
			}
			return err
		}},
	}
	for _, t := range trials {
		err := t.try()
		switch {
		case apierrors.IsForbidden(err), errors.Is(err, errUntried):
		case err == nil:
			return &UnheldError{node, t.what}
		default:
			return fmt.Errorf("see whether %s: %w", t.what, err)
		}
	}
	return nil
}

// createNode creates a Node as a dry run. One that is there already proves the
// right just as well.
func createNode(ctx context.Context, as kubernetes.Interface, name string, labels map[string]string) error {
	all := map[string]string{contract.NodeLabel: contract.NodeLabelValue, contract.TypeLabel: contract.TypeLabelValue, contract.NodeNameLabel: name}
	for k, v := range labels {
		all[k] = v
	}
	_, err := as.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{contract.Taint()}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
