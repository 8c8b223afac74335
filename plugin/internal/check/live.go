package check

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"

	"github.com/ainode/ainode/api/contract"
)

// enforceLabel is Pod Security's (KEP-2579); the chart's webhook configurations look
// at the same.
const enforceLabel = "pod-security.kubernetes.io/enforce"

// Live reads objects of a cluster, named as kubectl get takes them.
func Live(getter genericclioptions.RESTClientGetter, namespace string, args []string) ([]Object, error) {
	infos, err := resource.NewBuilder(getter).Unstructured().
		NamespaceParam(namespace).DefaultNamespace().
		ResourceTypeOrNameArgs(true, args...).ContinueOnError().Latest().Flatten().Do().Infos()
	var objects []Object
	for _, info := range infos {
		u, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		o, err := FromCluster(u, strings.ToLower(u.GetKind())+"/"+info.Name)
		if err != nil {
			return nil, err
		}
		if !o.HasPod() {
			return nil, fmt.Errorf("%s is no pod and makes none", o.File)
		}
		objects = append(objects, o)
	}
	return objects, err
}

// Facts reads what a namespace says of its pods.
func Facts(ctx context.Context, core kubernetes.Interface, namespace string) (contract.Namespace, error) {
	ns, err := core.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return contract.Namespace{}, fmt.Errorf("read namespace %q: %w", namespace, err)
	}
	return contract.Namespace{
		OptedIn:    ns.Labels[contract.ScheduleLabel] == "true",
		Restricted: ns.Labels[enforceLabel] == "restricted",
	}, nil
}

// Guards reads the objects of a namespace that speak of pods without being any:
// network policies and disruption budgets.
func Guards(ctx context.Context, core kubernetes.Interface, namespace string) ([]Object, error) {
	policies, err := core.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the network policies of %q: %w", namespace, err)
	}
	budgets, err := core.PolicyV1().PodDisruptionBudgets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the disruption budgets of %q: %w", namespace, err)
	}
	var all []Object
	add := func(object any, apiVersion, kind, name string) error {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return fmt.Errorf("read %s %q: %w", kind, name, err)
		}
		u := &unstructured.Unstructured{Object: content}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		o, err := FromCluster(u, strings.ToLower(kind)+"/"+name)
		all = append(all, o)
		return err
	}
	for i := range policies.Items {
		if err := add(&policies.Items[i], "networking.k8s.io/v1", "NetworkPolicy", policies.Items[i].Name); err != nil {
			return nil, err
		}
	}
	for i := range budgets.Items {
		if err := add(&budgets.Items[i], "policy/v1", "PodDisruptionBudget", budgets.Items[i].Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}
