package objects

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ainode/ainode/nodeagent/internal/listwatch"
)

// The Service that every container is told of, wherever its pod is (kubelet,
// pkg/kubelet/kubelet_pods.go).
const apiServer, apiServerNamespace = "kubernetes", metav1.NamespaceDefault

// Services knows the cluster's Services that have an address: one list and one watch
// for all pods, as the kubelet has it. A node may watch all of them (Node authorizer).
// Of each it keeps only what containers are told.
type Services struct{ informer cache.SharedIndexInformer }

// NewServices returns Services that know of none until Run has read them.
func NewServices(client kubernetes.Interface) (*Services, error) {
	// The API server can tell the headless from the others, and often they are many.
	addressed := fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone)
	informer := cache.NewSharedIndexInformer(listwatch.Of(client.CoreV1().Services(metav1.NamespaceAll), addressed, client),
		&corev1.Service{}, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	if err := informer.SetTransform(essence); err != nil {
		return nil, fmt.Errorf("watch the cluster's Services: %w", err)
	}
	return &Services{informer: informer}, nil
}

// essence is what is kept of a Service: most of one is its history.
func essence(object any) (any, error) {
	s, ok := object.(*corev1.Service)
	if !ok {
		return object, nil // what is told of one whose deletion was missed
	}
	kept := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, ResourceVersion: s.ResourceVersion}}
	kept.Spec.ClusterIP = s.Spec.ClusterIP
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		kept.Spec.Ports = append(kept.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return kept, nil
}

// Run follows the Services until ctx is done. It works while the API does not answer.
func (s *Services) Run(ctx context.Context) error {
	s.informer.RunWithContext(ctx)
	return nil
}

// Read is closed when they have been read once.
func (s *Services) Read() <-chan struct{} { return s.informer.HasSyncedChecker().Done() }

// Of are the Services of a namespace and, of another, the API server's. Do not change them.
func (s *Services) Of(namespace string) ([]*corev1.Service, error) {
	found, err := s.informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, fmt.Errorf("look up the Services of namespace %q: %w", namespace, err)
	}
	if namespace != apiServerNamespace {
		own, there, err := s.informer.GetIndexer().GetByKey(apiServerNamespace + "/" + apiServer)
		if err != nil {
			return nil, fmt.Errorf("look up the API server's Service: %w", err)
		}
		if there {
			found = append(found, own)
		}
	}
	services := make([]*corev1.Service, 0, len(found))
	for _, f := range found {
		if service, ok := f.(*corev1.Service); ok {
			services = append(services, service)
		}
	}
	return services, nil
}
